"""Meshes with explicit axes, the default of `jax.make_mesh`: the sharding of every array is part of its type.

There JAX refuses operations whose sharding it cannot derive: rows gathered from a table, merged dimensions, a sum over
a sharded dimension. It also refuses loops and branches whose constants are not sharded like the results that replace
them. Without explicit axes every function here does what its `jax.numpy` counterpart does.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec


def has_explicit_axes(*arrays: Any) -> bool:
    """Whether an array, or `ShapeDtypeStruct`, lies on a mesh with explicit axes."""
    shardings = [_type(x).sharding for x in arrays]
    return any(sharding is not None and sharding.mesh.explicit_axes for sharding in shardings)


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
    sharding = PartitionSpec(*_spec(index), *_spec(table)[1:])
    return table.at[index].get(mode="fill", out_sharding=sharding)


def reshape_tail(x: jax.Array, axis: int, *sizes: Any) -> jax.Array:
    """x with the dimensions from a negative axis on reshaped to these sizes; those before it stay sharded."""
    shape = (*x.shape[:axis], *sizes)
    if not has_explicit_axes(x):
        return jnp.reshape(x, shape)
    return jax.lax.reshape(x, shape, out_sharding=_sharding(x, *_spec(x)[:axis], *(None for _ in sizes)))


def batch_sharding(count: int, *arrays: Any) -> NamedSharding | None:
    """Sharding of an array with the batch dimensions of these arrays and `count` more; None without explicit axes.

    arrays: arrays or `ShapeDtypeStruct`, each with two dimensions after its batch dimensions, which broadcast.
    """
    sharded = [x for x in arrays if has_explicit_axes(x)]
    if not sharded:
        return None
    rank = max(len(x.shape) for x in arrays) - 2
    merged: list[Any] = [None] * rank
    for x in sharded:
        for axis, name in enumerate(_spec(x)[:-2], rank - len(x.shape) + 2):
            merged[axis] = merged[axis] or name
    return _sharding(sharded[0], *merged, *(None for _ in range(count)))


def share_batch_sharding(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays of equal rank with their batch dimensions sharded alike: JAX refuses the product of others.

    A dimension that is whole in one array and sharded in another is sharded in both, if the devices divide it.
    """
    sharding = batch_sharding(2, *arrays)
    if sharding is None:
        return arrays
    devices, wanted = sharding.mesh.shape, sharding.spec[:-2]

    def place(x: jax.Array) -> jax.Array:
        own = _spec(x)
        spec = [
            name or (other if isinstance(other, str) and other not in own and size % devices[other] == 0 else None)
            for name, other, size in zip(own[:-2], wanted, x.shape[:-2], strict=True)
        ]
        return reshard(x, _sharding(x, *spec, *own[-2:]))

    return tuple(place(x) if has_explicit_axes(x) else x for x in arrays)


def rows_sharding(rows: Any, axis: int) -> NamedSharding | None:
    """Sharding of an array like `rows` with another, unsharded, number of rows along a negative axis, or None."""
    if not has_explicit_axes(rows):
        return None
    spec = list(_spec(rows))
    spec[axis] = None
    return _sharding(rows, *spec)


def reshard(x: jax.Array, sharding: NamedSharding | None) -> jax.Array:
    """x with this sharding as its type; x itself for None."""
    return x if sharding is None else jax.sharding.reshard(x, sharding)


def reshard_like(x: Any, like: Any) -> Any:
    """Every array of a pytree with the sharding of the array, or `ShapeDtypeStruct`, in its place in `like`."""
    return jax.tree.map(lambda a, b: reshard(a, _sharding(b, *_spec(b))) if has_explicit_axes(b) else a, x, like)


def sum_sharding(a: jax.Array, b: jax.Array) -> NamedSharding | None:
    """Sharding of `a @ b` for a matrix b where the dimension that is summed over is sharded in both; else None.

    JAX asks how the sum is stored: whole on every device, as after tensor-parallel projections.
    """
    if not has_explicit_axes(a, b) or b.ndim != 2 or _spec(b)[0] is None or _spec(a)[-1] != _spec(b)[0]:
        return None
    return _sharding(a, *_spec(a)[:-1], _spec(b)[1])


def _spec(x: Any) -> tuple:
    """One entry for each dimension."""
    spec = tuple(_type(x).sharding.spec)
    return spec + (None,) * (len(x.shape) - len(spec))


def _sharding(x: Any, *spec: Any) -> NamedSharding:
    return NamedSharding(_type(x).sharding.mesh, PartitionSpec(*spec))


def _type(x: Any) -> Any:
    return x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
