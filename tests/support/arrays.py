"""Random arrays and comparisons of results.

NumPy computes them, because JAX would compile a program for each shape and operation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shape: int, dtype: Any = None) -> jax.Array:
    """Normally distributed numbers, in float32, or in float64 where JAX has it, unless another dtype is named."""
    numbers = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(numbers if dtype is None else numbers.astype(dtype))


def normal_arrays(seed: int, *shapes: tuple[int, ...], dtype: Any = "float32") -> list[jax.Array]:
    """Several arrays of normally distributed numbers, drawn one after the other with one seed."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def query_key_value(
    seed: int = 0, rows: int = 5, columns: int = 6, batch_shape: tuple[int, ...] = (), dtype: Any = "float32"
) -> list[jax.Array]:
    """Query `[*batch_shape, rows, 4]`, key `[*batch_shape, columns, 4]` and value `[*batch_shape, columns, 3]`."""
    shapes = (*batch_shape, rows, 4), (*batch_shape, columns, 4), (*batch_shape, columns, 3)
    return normal_arrays(seed, *shapes, dtype=dtype)


def random_mask(seed: int, *shape: int) -> jax.Array:
    """Booleans, each True with probability 0.6."""
    return jnp.asarray(np.random.default_rng(seed).random(shape) < 0.6)


def difference(actual: Any, expected: Any) -> float:
    """Largest absolute difference of two finite arrays of equal shape, 0 for arrays without entries."""
    actual, expected = (np.asarray(x).astype(np.float64) for x in (actual, expected))
    assert actual.shape == expected.shape
    assert np.all(np.isfinite(actual))
    assert np.all(np.isfinite(expected))
    return float(np.max(np.abs(actual - expected), initial=0))


def check_close(actual: Any, expected: Any, tolerance: float) -> None:
    """All arrays of two trees are finite and equal up to `tolerance` times one more than their largest entry."""
    pairs = list(zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True))
    assert pairs
    for x, y in pairs:
        assert difference(x, y) <= tolerance * (1 + difference(y, np.zeros(y.shape)))
