"""Meshes with explicit axes, the default of `jax.make_mesh`: the sharding of every array is part of its type.

There JAX refuses operations whose sharding it cannot derive: rows gathered from a table, and merged dimensions that are
sharded.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


def has_explicit_axes(*arrays: Any) -> bool:
    """Whether an array lies on a mesh with explicit axes."""
    return any(jax.typeof(x).sharding.mesh.explicit_axes for x in arrays)


def flatten_rows(x: jax.Array) -> jax.Array:
    """`[..., D] -> [R, D]`, for one product or norm instead of a stack of them.

    With explicit axes x stays as it is: a sharded dimension cannot be merged into another one.
    """
    return x if has_explicit_axes(x) else x.reshape(-1, x.shape[-1])


def take_rows(table: jax.Array, index: jax.Array) -> jax.Array:
    """`table[index]`, `[..., D]`, sharded like the index.

    An index beyond the last row gives NaN, or the most negative integer in a table of integers.
    """
    if not has_explicit_axes(index):
        return jnp.take(table, index, axis=0, mode="fill")
    sharding = PartitionSpec(*jax.typeof(index).sharding.spec, *jax.typeof(table).sharding.spec[1:])
    return table.at[index].get(mode="fill", out_sharding=sharding)
