"""Running sums along a sequence, a chunk at a time: exact within the chunk, one state between chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.explicit_axes import reshape_tail
from jax_attention.core.numerics import pvary_like
from jax_attention.core.sizes import is_static

CHUNK = 128
"""Rows at a time: C x C scores exist at once, and one state is kept for the backward pass every C rows."""

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(step: Step, state: Any, rows: Any, chunk: int | None) -> tuple[Any, Any]:
    """`step(state, rows of one chunk) -> state, rows of results` along axis -2 of all arrays; what is left at the end
    of the last chunk is filled with zeros. Each chunk is computed again in the backward pass.
    """
    count = jax.tree.leaves(rows)[0].shape[-2]
    height = CHUNK if chunk is None else chunk
    chunks = -(-count // height)
    if is_static(count):
        height = -(-count // chunks)  # chunks of one height: little of the last one is padding
    cut = jax.tree.map(lambda x: _cut(moved(x, 0, chunks * height), chunks, height), rows)
    if chunks == 1:
        state, results = step(state, jax.tree.map(lambda x: x[0], cut))
    else:
        state = pvary_like(state, (state, rows))
        state, results = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), state, cut)
        results = jax.tree.map(_joined, results)
    return state, jax.tree.map(lambda x: x[..., :count, :], results)


def moved(x: jax.Array, ahead: int, count: int) -> jax.Array:
    """`count` rows of `x[..., S, X]` beginning at row `ahead`, which may be negative; 0 outside of x."""
    edges = [(0, 0, 0)] * (x.ndim - 2) + [(-ahead, count - x.shape[-2] + ahead, 0), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)


def causal_block(rows: jax.Array) -> jax.Array:
    """bool `[..., C, C]` for `rows[..., C, X]`, with as many axes: row t sees key row s where `s <= t`."""
    height = rows.shape[-2]
    return jnp.tril(jnp.ones((*(1 for _ in rows.shape[:-2]), height, height), bool))


def _cut(x: jax.Array, chunks: int, height: int) -> jax.Array:
    return jnp.moveaxis(reshape_tail(x, -2, chunks, height, x.shape[-1]), -3, 0)


def _joined(x: jax.Array) -> jax.Array:
    x = jnp.moveaxis(x, 0, -3)
    return reshape_tail(x, -3, x.shape[-3] * x.shape[-2], x.shape[-1])
