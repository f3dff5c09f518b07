"""Random arrays, and how near two results are, by NumPy: JAX would compile a program for each shape and operation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shape: int, dtype: Any = None) -> jax.Array:
    """Normally distributed numbers, in float32, or in float64 where JAX has it, unless another dtype is named."""
    numbers = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(numbers if dtype is None else numbers.astype(dtype))


def coin(seed: int, *shape: int) -> jax.Array:
    """True in 6 of 10 entries."""
    return jnp.asarray(np.random.default_rng(seed).random(shape) < 0.6)


def difference(found: Any, expected: Any) -> float:
    """The largest absolute difference of two finite arrays of equal shape, 0 if they have no entry."""
    found, expected = (np.asarray(x).astype(np.float64) for x in (found, expected))
    assert found.shape == expected.shape
    assert np.all(np.isfinite(found))
    assert np.all(np.isfinite(expected))
    return float(np.max(np.abs(found - expected), initial=0))


def check_close(found: Any, expected: Any, tolerance: float) -> None:
    """All arrays of two trees: finite, and equal up to `tolerance` times one more than the largest entry."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    assert pairs
    for x, y in pairs:
        assert difference(x, y) <= tolerance * (1 + difference(y, np.zeros(y.shape)))
