"""Queries, keys and values of random numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shapes: tuple[int, ...], dtype="float32") -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def qkv(seed: int = 0, rows: int = 5, columns: int = 6, lead: tuple[int, ...] = (), dtype="float32"):
    return normal(seed, (*lead, rows, 4), (*lead, columns, 4), (*lead, columns, 3), dtype=dtype)
