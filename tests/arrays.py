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
    """The largest absolute difference of two arrays of equal shape; NaN if one has NaN, 0 if they have no entry."""
    found, expected = (_wide(x) for x in (found, expected))
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected), initial=0))


def check_close(found: Any, expected: Any, tolerance: float) -> None:
    """All arrays of two trees: finite, and equal up to `tolerance` times one more than the largest entry."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.all(np.isfinite(_wide(x)))
        assert difference(x, y) <= tolerance * (1 + np.max(np.abs(_wide(y)), initial=0))


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)
