"""Numerical guards shared by every rule: which dtype to compute in, safe rows, gathers, matmul precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

EMPTY_POSITION = 2**30
"""The position of a cache slot or padding token that holds nothing: so far ahead that causal masks exclude it."""


def compute_dtype(*arrays: Any) -> jnp.dtype:
    """The dtype of scores and statistics: at least float32; float64 stays float64."""
    dtype = jnp.dtype(jnp.result_type(*arrays))
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def matmul_precision(precision: Any) -> AbstractContextManager:
    """A context in which every product, a user's own score included, is traced with `precision`."""
    if isinstance(precision, tuple) and len(set(precision)) == 1:
        precision = precision[0]
    if precision is None or precision == lax.DotAlgorithmPreset.DEFAULT:
        return nullcontext()
    name = precision
    if isinstance(precision, lax.Precision):
        name = precision.name.lower()
    elif isinstance(precision, lax.DotAlgorithmPreset):
        name = precision.name
    try:
        return jax.default_matmul_precision(name)
    except (TypeError, ValueError):
        raise ValueError(
            'precision: expected None, a name such as "highest", a jax.lax.Precision or a jax.lax.DotAlgorithmPreset, '
            f"the same for both operands, got {precision!r}."
        ) from None


def pvary_like(x: Any, like: Any) -> Any:
    """x, both pytrees, typed as varying over every mesh axis over which something in `like` varies.

    Under `shard_map` a loop must start from what has the type of its results; outside of it nothing varies.
    """
    axes = pvary_axes(like)

    def vary(leaf: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - pvary_axes(leaf)))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, x) if axes else x


def filled(shape: tuple[int, ...], number: float, like: jax.ShapeDtypeStruct) -> jax.Array:
    """An array in the dtype of `like`, spread over an explicit mesh as that is."""
    spread = like.sharding if like.sharding is not None and like.sharding.mesh.explicit_axes else None
    return jnp.full(shape, number, like.dtype, out_sharding=spread)


def pvary_axes(x: Any) -> set[str]:
    """The mesh axes over which any array of a pytree, or any struct of one, varies; none outside of `shard_map`."""
    types = [leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf) for leaf in jax.tree.leaves(x)]
    return {axis for held in types if held.manual_axis_type is not None for axis in held.manual_axis_type.varying}


def forbid(scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A score of -inf forbids its pair, as a mask does; scores of forbidden pairs become 0.

    So no mod or normalizer sees inf or NaN there: the 0 that comes back as their gradient would become NaN.
    """
    where = where & ~jnp.isneginf(scores)
    return jnp.where(where, scores, 0), where


def zero_rows(x: jax.Array, used: jax.Array) -> jax.Array:
    """`x[..., R, C]` with the rows that nobody uses set to 0, forward and backward; `used` is bool `[..., R]`.

    A zero weight does not protect from NaN (0 * NaN = NaN), neither in `weights @ value` nor in the gradients of
    `query @ key`, so rows that no score depends on are replaced before any product. Where x has size 1 and `used` has
    more (one mask per head over shared keys), a row is kept when any of them uses it.
    """
    shared = tuple(i for i, size in enumerate(x.shape[:-2]) if size == 1)
    used = jnp.any(used, axis=shared, keepdims=True)
    return jnp.where(used[..., None], x, jnp.zeros((), x.dtype))


def take_last(table: jax.Array, index: jax.Array) -> jax.Array:
    """`table[..., n]` looked up by `index[..., t, s]`; the leading axes of both broadcast. Returns `[..., t, s]`."""
    if all(size == 1 for size in index.shape[:-2]):
        table = table.reshape((1,) * (index.ndim - 1 - table.ndim) + table.shape)
        return jnp.take(table, index.reshape(index.shape[-2:]), axis=-1)
    lead = jnp.broadcast_shapes(table.shape[:-1], index.shape[:-2])
    table = jnp.broadcast_to(table, (*lead, table.shape[-1]))
    flat = jnp.broadcast_to(index, lead + index.shape[-2:]).reshape(*lead, -1)
    return jnp.take_along_axis(table, flat, axis=-1).reshape(lead + index.shape[-2:])


def per_tile(x: jax.Array | float) -> jax.Array | float:
    """A number per leading axis `[...] -> [..., 1, 1]`, ready to broadcast over a tile; a Python number stays one."""
    return x if isinstance(x, (int, float)) else jnp.asarray(x)[..., None, None]


def safe_norm(x: jax.Array) -> jax.Array:
    """Euclidean length over the last axis, kept as an axis; exactly 0 for a zero vector, where its gradient is 0 too.

    `sqrt` has an infinite slope at 0; the inner `where` keeps that slope out of the chain rule.
    """
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
