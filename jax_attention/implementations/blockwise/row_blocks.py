"""Whole rows at a time: for normalizers that need them, for weights, and for statistics.

    for each block of rows:  the dense formula over [rows, S], recomputed in the backward pass

Memory is that of one block; derivatives of every order are those of the dense formula.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import pad_with_last
from jax_attention.core.sizes import is_at_most, is_static
from jax_attention.core.struct import NamedArray, UserFunction, find_parts, map_arrays
from jax_attention.implementations import dense
from jax_attention.implementations.blockwise.map_batch import batch_may_be_mapped, map_batch
from jax_attention.implementations.call import AttentionCall, AttentionOutput, with_batch_index

MAX_SCORES_PER_BLOCK = 2**21
"""How many scores a block of rows may hold: 8 MiB in float32, about the size of a CPU's caches."""
ROWS_IF_UNKNOWN = 128
"""Rows of a block where the number of scores in a row is symbolic: 2^21 scores are then 16,384 in each row."""

Tile = tuple[int, int] | None


def attend(call: AttentionCall, tile: Tile) -> jax.Array:
    """`[*batch, T, E]`."""
    return _in_blocks(dense.attend, call, tile, -2)


def weights(call: AttentionCall, tile: Tile) -> jax.Array:
    """`[*batch, T, S]`: quadratic by its nature, but no more than that."""
    return _in_blocks(dense.weights, call, tile, -2)


def attend_with_stats(call: AttentionCall, tile: Tile) -> AttentionOutput:
    """Output and statistics."""
    return _in_blocks(dense.attend_with_stats, call, tile, AttentionOutput(-2, -1, -1, -1))


def _in_blocks(formula: Callable[[AttentionCall], Any], call: AttentionCall, tile: Tile, axes: Any) -> Any:
    """`formula` on blocks of queries, if possible batch entry by batch entry; `axes`: query axis of each result."""
    run = partial(_block_after_block, formula, tile, axes)
    if 0 in call.score_shape or find_parts(UserFunction, call.normalize) or not batch_may_be_mapped(call):
        return run(call)
    return map_batch(run, call if call.dropout is None else with_batch_index(call))


def _block_after_block(formula: Callable, tile: Tile, axes: Any, call: AttentionCall) -> Any:
    rows = call.score_shape[-2]
    height = _rows_at_once(call) if tile is None else tile[0]
    if is_at_most(rows, height):
        return formula(call)
    blocks = -(-rows // height)
    if is_static(rows):
        height = -(-rows // blocks)
    padded = _map_query_axis(lambda x, axis: pad_with_last(x, axis, blocks * height - rows), call)

    @jax.checkpoint
    def block(call: AttentionCall, i: jax.Array) -> Any:
        def cut(x: Any, axis: int) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(x), i * height, height, axis)

        return formula(_map_query_axis(cut, call))

    results = jax.lax.map(lambda i: block(padded, i), jnp.arange(blocks))

    def concatenate(x: jax.Array, axis: int) -> jax.Array:
        x = jnp.moveaxis(x, 0, axis - 1)
        shape = (*x.shape[: axis - 1], blocks * height, *(x.shape[axis + 1 :] if axis < -1 else ()))
        return jax.lax.slice_in_dim(x.reshape(shape), 0, rows, axis=axis)

    return jax.tree.map(concatenate, results, axes)


def _rows_at_once(call: AttentionCall) -> int:
    scores_per_row = call.batch_size * call.score_shape[-1] * call.score.numbers_per_pair
    if not is_static(scores_per_row):
        return ROWS_IF_UNKNOWN
    return max(1, MAX_SCORES_PER_BLOCK // max(scores_per_row, 1))


def _map_query_axis(fn: Callable[[Any, int], Any], call: AttentionCall) -> AttentionCall:
    """`fn(array, axis)` of every array with an entry per query."""

    def visit(entry: NamedArray) -> Any:
        axes = ("T", "H") if entry.name == "key" and call.score.key_per_query else entry.axes
        axis = axes.index("T") - len(axes) if "T" in axes else None
        return entry.array if axis is None or entry.array.shape[axis] == 1 else fn(entry.array, axis)

    return map_arrays(visit, call)
