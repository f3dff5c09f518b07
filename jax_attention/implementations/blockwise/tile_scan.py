"""FlashAttention-2 for any attention rule: one pass over tiles with a running maximum, and one derivative rule, from
which JAX makes all others.

    forward:   for each tile:  S = score(Q_i, K_j);  m' = max(m, rowmax S);  P = numerator(S - m')
                               l = l * exp(m - m') + rowsum P;   O = O * exp(m - m') + P V_j
               output = O / l
    tangent:   for each tile:  tangents of O and l += jvp of (P V_j, rowsum P) with m held fixed

The row maximum m is a constant to derivatives, because output = O / l does not depend on it. The tangent is linear and
recomputes each tile from the projected Q, K, V and m. Its transpose, which JAX makes, is FlashAttention-2's backward
pass (algorithm 2: recompute S and P, then sum dQ, dK, dV over tiles). Its term D = rowsum(dO * O) is the derivative of
O / l, which `attend_tiles` computes. Unlike the paper's two nested loops, tiles come as one list, full ones before
masked ones, and the carry holds O, l and m of all rows. Reverse over reverse mode saves that carry for every tile: use
forward over reverse mode (`jax.hessian`, Hessian-vector products) for second derivatives of long sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jax_attention.core.explicit_axes import reshard_like
from jax_attention.core.numerics import full_with_sharding, matmul, matmul_precision, pvary_like, zero_rows
from jax_attention.core.short_repr import short_repr
from jax_attention.implementations.blockwise.tiled_call import TiledCall, TileGrid, TileSchedule
from jax_attention.implementations.call import AttentionCall


@short_repr
class RunningSums(NamedTuple):
    """Sums over the keys so far: numerators times values `[*batch, T, E]`, and the normalizer's total `[*batch, T, 1]`.

    Under softmax these are FlashAttention's O (not yet divided) and l.
    """

    values: jax.Array
    total: jax.Array


def scan_tiles(tiled: TiledCall, schedule: TileSchedule) -> tuple[RunningSums, Any]:
    """The sums over all keys, and the row maxima `[*batch, T, 1]` (None for normalizers without one)."""

    @jax.custom_jvp
    def sums(tiled: TiledCall) -> tuple[RunningSums, Any]:
        return _forward(schedule, tiled)

    @partial(sums.defjvp, symbolic_zeros=True)
    def sums_jvp(primals: tuple, tangents: tuple) -> tuple[Any, Any]:
        # JAX applies this rule to every derivative, except inside a `lax.map` or `scan` that was differentiated in
        # reverse: there it has been inlined, and second derivatives go through `_forward` itself.
        (tiled,) = primals
        with matmul_precision(tiled.call.precision):  # this rule may be traced long after the call returned
            out, row_max = sums(tiled)
            tangent = _jvp(schedule, tiled, tangents[0], out, row_max)
        return (out, row_max), (tangent, jax.tree.map(jnp.zeros_like, row_max))

    return sums(tiled)


def _forward(schedule: TileSchedule, tiled: TiledCall) -> tuple[RunningSums, Any]:
    """FlashAttention-2, algorithm 1, over the tiles that the mask leaves nonempty, without its last line O / l."""
    grid = tiled.grid

    def step(carry: tuple[RunningSums, Any], i: jax.Array, j: jax.Array, masked: bool) -> tuple[RunningSums, Any]:
        tile, nonempty = tiled.tile(i, j)

        def update(old: RunningSums, old_max: Any) -> tuple[RunningSums, Any]:
            scores, where = _score_tile(grid, j, tile, masked)
            row_max = tile.normalize.row_max(scores, where)
            row_max = None if row_max is None else jnp.maximum(old_max, row_max)
            return merge(tile, old, _tile_sums(tile, scores, where, row_max), old_max, row_max), row_max

        rows = jax.tree.map(partial(_get_rows, grid, i), carry)
        rows = skip_if_empty(nonempty if masked else None, update, lambda *rows: rows, *rows)
        return jax.tree.map(partial(_set_rows, grid, i), carry, rows)

    def first_tile() -> tuple[RunningSums, Any]:
        tile, _ = tiled.tile(jnp.int32(0), jnp.int32(0))
        scores, where = _score_tile(grid, jnp.int32(0), tile, True)
        row_max = tile.normalize.row_max(scores, where)
        return _tile_sums(tile, scores, where, row_max), row_max

    def start(x: jax.ShapeDtypeStruct, number: float) -> jax.Array:
        return full_with_sharding((*x.shape[:-2], grid.rows * grid.height, x.shape[-1]), number, x)

    sums, row_max = jax.eval_shape(first_tile)  # only its shapes and dtypes are needed
    carry = jax.tree.map(lambda x: start(x, 0), sums), jax.tree.map(lambda x: start(x, -jnp.inf), row_max)
    return schedule.scan(step, pvary_like(carry, tiled))


def _jvp(schedule: TileSchedule, tiled: TiledCall, tangents: TiledCall, out: RunningSums, row_max: Any) -> RunningSums:
    """The tangent of the sums, tile by tile; arrays whose tangent is known to be 0 are constants."""
    grid = tiled.grid
    leaves, tree = jax.tree.flatten(tiled)
    tangent_leaves = jax.tree.leaves(tangents, is_leaf=lambda x: isinstance(x, SymbolicZero))
    active = [
        n for n, x in enumerate(tangent_leaves) if not isinstance(x, SymbolicZero) and x.dtype != jax.dtypes.float0
    ]
    zeros = jax.tree.map(jnp.zeros_like, out)
    if not active:
        return zeros

    def step(carry: RunningSums, i: jax.Array, j: jax.Array, masked: bool) -> RunningSums:
        rows_max = jax.tree.map(partial(_get_rows, grid, i), row_max)

        def recompute(*arrays: jax.Array) -> RunningSums:
            replaced = dict(zip(active, arrays, strict=True))
            tile, nonempty = jax.tree.unflatten(tree, [replaced.get(n, x) for n, x in enumerate(leaves)]).tile(i, j)

            def sums(tile: AttentionCall) -> RunningSums:
                return _tile_sums(tile, *_score_tile(grid, j, tile, masked), rows_max)

            def no_sums(tile: AttentionCall) -> RunningSums:
                return jax.tree.map(lambda x: jnp.zeros_like(_get_rows(grid, i, x)), out)

            return skip_if_empty(nonempty if masked else None, sums, no_sums, tile)

        _, tangent = jax.jvp(recompute, [leaves[n] for n in active], [tangent_leaves[n] for n in active])
        rows = jax.tree.map(lambda total, x: _get_rows(grid, i, total) + x, carry, tangent)
        return jax.tree.map(partial(_set_rows, grid, i), carry, rows)

    return schedule.scan(step, pvary_like(zeros, out))


def _score_tile(grid: TileGrid, j: jax.Array, tile: AttentionCall, masked: bool) -> tuple[jax.Array, jax.Array]:
    """Scores of a tile in column j after mods, `[*batch, t, s]`, ready to be normalised, and the allowed pairs."""
    scores = tile.score.tile(tile.query, tile.key)
    where = jnp.ones((), bool)
    if masked:
        where = grid.is_not_padding(j, scores.ndim)
        if tile.mask is not None:
            allowed = tile.mask(*tile.pair_positions)
            where = where & allowed.reshape(allowed.shape[-scores.ndim :])  # a user's mask may add axes of size 1
    shape = jnp.broadcast_shapes(scores.shape, where.shape)
    batch = jnp.broadcast_shapes(shape[:-2], tile.value.shape[:-2])
    scores, where = (jnp.broadcast_to(x, batch + shape[-2:]) for x in (scores, where))
    return tile.modify(scores, where)


def _tile_sums(tile: AttentionCall, scores: jax.Array, where: jax.Array, row_max: Any) -> RunningSums:
    """What one tile adds to the sums, relative to the row maximum: P V and rowsum P."""
    numerator = tile.normalize.numerator(scores, where, row_max)
    total = tile.normalize.total(numerator, where)
    # Pairs that only a score of -inf forbids are not known to `zero_unused`, and 0 * NaN would be NaN.
    value = zero_rows(tile.value, where.any(-2)) if tile.may_forbid_pairs else tile.value
    if tile.dropout is not None:
        numerator = tile.dropout(numerator, *tile.pair_positions, tile.batch_index)
    return RunningSums(matmul(numerator, value), total)


def merge(tile: AttentionCall, old: RunningSums, new: RunningSums, old_max: Any, row_max: Any) -> RunningSums:
    """Merge two partial sums after rescaling the older one to the new row maximum (online softmax)."""
    factor = tile.normalize.rescale(old_max, row_max)
    return RunningSums(*(factor * a + b for a, b in zip(old, new, strict=True)))


def skip_if_empty(nonempty: jax.Array | None, run: Callable, otherwise: Callable, *operands: Any) -> Any:
    """`run(*operands)`, or `otherwise(*operands)` for a tile that is fully masked at run time.

    Pass slices, not whole arrays: the transpose of `lax.cond` allocates cotangents as large as its operands.
    """
    if nonempty is None:
        return run(*operands)

    def like_run(*operands: Any) -> Any:
        result = jax.eval_shape(run, *operands)
        return reshard_like(pvary_like(otherwise(*operands), result), result)

    return jax.lax.cond(nonempty, run, like_run, *operands)


def _get_rows(grid: TileGrid, i: jax.Array, x: jax.Array) -> jax.Array:
    """Rows of tile row i."""
    return jax.lax.dynamic_slice_in_dim(x, i * grid.height, grid.height, axis=x.ndim - 2)


def _set_rows(grid: TileGrid, i: jax.Array, x: jax.Array, rows: jax.Array) -> jax.Array:
    """`x` with other rows in tile row i."""
    return jax.lax.dynamic_update_slice_in_dim(x, rows, i * grid.height, axis=x.ndim - 2)
