"""Masks that carry data: lengths, segment ids, a dense array, a grid of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_array, check_int, check_lengths
from jax_attention.core.explicit_axes import reshape_tail
from jax_attention.core.numerics import per_tile, take_last
from jax_attention.core.struct import array_field, struct
from jax_attention.masks.base import Mask
from jax_attention.masks.block_coverage import BlockCoverage, TileRanges, low_and_high

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


@struct
class Lengths(Mask):
    """`k_pos < key_lengths` and `q_pos < query_lengths`; see `lengths`."""

    key_lengths: jax.Array | int | None = array_field(default=None, per_sequence=True)
    query_lengths: jax.Array | int | None = array_field(default=None, per_sequence=True)

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        allowed = (q_pos == q_pos) & (k_pos == k_pos)  # True in the shape of the tile, for the lengths that are None
        if self.key_lengths is not None:
            allowed = allowed & (k_pos < per_tile(self.key_lengths))
        if self.query_lengths is not None:
            allowed = allowed & (q_pos < per_tile(self.query_lengths))
        return allowed

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        coverage = tiles.coverage(np.ones((), bool), np.ones((), bool))
        if self.key_lengths is not None:
            length = per_tile(self.key_lengths)
            coverage = coverage & tiles.coverage(tiles.k_low < length, tiles.k_high < length)
        if self.query_lengths is not None:
            length = per_tile(self.query_lengths)
            coverage = coverage & tiles.coverage(tiles.q_low < length, tiles.q_high < length)
        return coverage


@struct
class Segments(Mask):
    """`query_ids[t] == key_ids[s]`; see `segments`."""

    query_ids: jax.Array = array_field("T", per_sequence=True)
    key_ids: jax.Array = array_field("S", per_sequence=True)

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return self.query_ids[..., :, None] == self.key_ids[..., None, :]

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        q_low, q_high = (x[..., :, None] for x in low_and_high(self.query_ids, tiles.height))
        k_low, k_high = (x[..., None, :] for x in low_and_high(self.key_ids, tiles.width))
        overlap = (q_low <= k_high) & (k_low <= q_high)
        return tiles.coverage(overlap, overlap & (q_low == q_high) & (k_low == k_high))


@struct
class Dense(Mask):
    """`array[..., t, s]`; see `dense`."""

    array: jax.Array = array_field("T", "S")

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return jnp.asarray(self.array)

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        rows, columns = self.array.shape[-2:]
        grid = (tiles.rows, tiles.height) if rows != 1 else (1, 1)
        grid += (tiles.columns, tiles.width) if columns != 1 else (1, 1)
        blocks = reshape_tail(jnp.asarray(self.array), -2, *grid)
        return tiles.coverage(jnp.any(blocks, axis=(-3, -1)), np.zeros((), bool))


@struct
class BlockSparse(Mask):
    """`blocks[..., q_pos // block_size, k_pos // block_size]`; see `block_sparse`."""

    blocks: jax.Array = array_field("rows", "columns", layout=True)
    block_size: int = 1

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        rows, columns = self.blocks.shape[-2:]
        row, column = q_pos // self.block_size, k_pos // self.block_size
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        flat = jnp.asarray(self.blocks).reshape(*self.blocks.shape[:-2], rows * columns)
        return inside & take_last(flat, jnp.where(inside, row * columns + column, 0))

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        """Count the allowed blocks in the range of each tile, by differences of a two-dimensional cumulative sum."""
        known = not isinstance(self.blocks, jax.core.Tracer) and all(isinstance(x, np.ndarray) for x in tiles[-4:])
        if any(np.ndim(x) > 2 and np.shape(x)[:-2].count(1) < np.ndim(x) - 2 for x in tiles[-4:]):
            return tiles.unknown()  # ranges differ between batch elements, and the sums below are for one grid
        xp = np if known else jnp
        blocks = xp.asarray(self.blocks)
        summed = xp.cumsum(xp.cumsum(xp.pad(blocks, [(0, 0)] * (blocks.ndim - 2) + [(1, 0), (1, 0)]), -1), -2)
        ranges = (xp.asarray(x).reshape(np.shape(x)[-2:]) for x in tiles[-4:])
        top, bottom, left, right = (x // self.block_size for x in ranges)
        inside = (top >= 0) & (left >= 0) & (bottom < blocks.shape[-2]) & (right < blocks.shape[-1])
        top, bottom = (xp.clip(x, 0, blocks.shape[-2]) for x in (top, bottom + 1))
        left, right = (xp.clip(x, 0, blocks.shape[-1]) for x in (left, right + 1))
        corners = summed[..., bottom, right] + summed[..., top, left]
        count = corners - summed[..., top, right] - summed[..., bottom, left]
        return tiles.coverage(count > 0, inside & (count == (bottom - top) * (right - left)))


def lengths(
    key_lengths: Int[Array, "*#batch"] | int | None = None, query_lengths: Int[Array, "*#batch"] | int | None = None
) -> Lengths:
    """Right padding: only the first `length` positions of each sequence are real.

        allowed(t, s)  <=>  k_pos < key_length  and  q_pos < query_length

    Padding queries attend to nothing, so their output is 0.

    Args:
        key_lengths: int, or integers with all batch dimensions: `[B]` for `attend`, `n[:, None]` under heads.
        query_lengths: the same for queries; with None all of them are real.

    Returns:
        A mask.

    Raises:
        ValueError: if both are None; by `attend`, if an array has some but not all batch dimensions.
        TypeError: if one is not integer.

    Example:
        >>> from jax_attention import masks
        >>> print(masks.lengths(2, 1).describe(2, 3))
        lengths(key_lengths=2, query_lengths=1)
        2 queries x 3 keys, # may attend:
        q 0  # # .
        q 1  . . .

    Reference:
        `query_seq_lengths` and `key_value_seq_lengths` of jax.nn.dot_product_attention.
    """
    if key_lengths is None and query_lengths is None:
        raise ValueError("key_lengths, query_lengths: expected at least one of them, got None for both.")
    return Lengths(
        None if key_lengths is None else check_lengths("key_lengths", key_lengths),
        None if query_lengths is None else check_lengths("query_lengths", query_lengths),
    )


def segments(query_ids: Int[Array, "*#batch T"], key_ids: Int[Array, "*#batch S"] | None = None) -> Segments:
    """Packed documents: a query sees the keys with the same id.

        allowed(t, s)  <=>  query_ids[t] = key_ids[s]

    Args:
        query_ids: integers `[..., T]`, by row; with all batch dimensions or none (`ids[:, None, :]` under heads).
        key_ids: integers `[..., S]`; None takes `query_ids` (self-attention).

    Returns:
        A mask.

    Raises:
        ValueError: if an array has no axis; by `attend`, if it does not fit T, S or the batch shape.
        TypeError: if ids are not integer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import masks
        >>> print(masks.segments(jnp.array([7, 7, 8])).describe(3))
        segments(query_ids=int32[3], key_ids=int32[3])
        3 queries x 3 keys, # may attend:
        q 0  # # .
        q 1  # # .
        q 2  . . #

    Reference:
        Krell et al. (2021), "Efficient sequence packing without cross-contamination".
    """
    query_ids = check_array("query_ids", query_ids, ("T",), kind="int")
    return Segments(query_ids, query_ids if key_ids is None else check_array("key_ids", key_ids, ("S",), kind="int"))


def dense(array: Bool[Array, "*batch T S"]) -> Dense:
    """Any boolean array as a mask.

        allowed(t, s)  <=>  array[..., t, s]

    Args:
        array: bool `[..., T, S]`, True = may attend; T or S may be 1. A padding mask `[B, S]` under heads is
            `valid[:, None, None, :]`. It is indexed by row, not by position.

    Returns:
        A mask.

    Raises:
        TypeError: if `array` is not boolean: additive float masks are `mods.bias`.
        ValueError: if it has fewer than two axes; by `attend`, if it does not fit the scores.

    Example:
        >>> import numpy as np
        >>> from jax_attention import masks
        >>> print(masks.dense(np.array([[True, False]])).describe(2))
        dense(array=bool[1,2])
        2 queries x 2 keys, # may attend:
        q 0  # .
        q 1  # .

    Reference:
        `mask` of jax.nn.dot_product_attention.
    """
    kind = getattr(array, "dtype", None)
    if kind is not None and jnp.issubdtype(kind, jnp.floating):
        raise TypeError(
            f"array: expected bool (True = may attend), got {kind}. Pass additive values as a bias: mods.bias(array); "
            "turn 0/1 values into a mask by array > 0."
        )
    return Dense(check_array("array", array, ("T", "S"), kind="bool"))


def block_sparse(blocks: Bool[Array, "*batch rows columns"], block_size: int) -> BlockSparse:
    """Block-sparse mask: a coarse grid of allowed blocks.

        allowed(t, s)  <=>  blocks[..., floor(q_pos / block_size), floor(k_pos / block_size)]

    Positions outside of the grid are not allowed.

    Args:
        blocks: bool `[..., ceil(T / block_size), ceil(S / block_size)]`.
        block_size: positions per block.

    Returns:
        A mask.

    Raises:
        TypeError: if `blocks` is not boolean or `block_size` not a Python int.
        ValueError: if `blocks` has fewer than two axes or `block_size` < 1.

    Example:
        >>> import numpy as np
        >>> from jax_attention import masks
        >>> print(masks.block_sparse(np.array([[True, False], [True, True]]), 2).describe(4))
        block_sparse(blocks=bool[2,2], block_size=2)
        4 queries x 4 keys, # may attend:
        q 0  # # . .
        q 1  # # . .
        q 2  # # # #
        q 3  # # # #

    Reference:
        Zaheer et al. (2020), "Big Bird: transformers for longer sequences", appendix D.
    """
    block_size = check_int("block_size", block_size, 1, "A block holds at least one position.")
    return BlockSparse(check_array("blocks", blocks, ("rows", "columns"), kind="bool"), block_size)
