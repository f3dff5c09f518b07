"""An attention call cut into tiles: tile sizes, padding, and which tiles must be computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.numerics import pad_with_last, pvary_axes, pvary_like
from jax_attention.core.short_repr import short_repr
from jax_attention.core.sizes import is_static
from jax_attention.core.struct import NamedArray, data_field, find_parts, map_arrays, part_field, struct
from jax_attention.implementations.blockwise.closure_convert import ClosedFunction
from jax_attention.implementations.call import AttentionCall
from jax_attention.masks import Mask
from jax_attention.masks.block_coverage import BlockCoverage, TileRanges, low_and_high

MAX_TILE_SCORES = {"cpu": (2**18, 1)}
"""Backend -> largest number of scores in a tile, and rows per column. On a CPU 512 x 512, unless there are fewer
queries or keys: the fastest of 5 shapes at T = 1,024 and 4,096, except 1,024 x 512, which is 4 % faster under causal
masks and 27 % slower under a window."""
MAX_TILE_SCORES_ELSEWHERE = (2**22, 4)
"""Many blocks of queries at a time, to fill an accelerator; not measured."""
FINER_TILE_COST = {1: 1.0, 2: 0.43, 4: 0.125}
"""Sides divided by this -> time of such a tile, forward and backward on a CPU, as a share of the whole tile's."""
MAX_TILES_COUNTED = 2**20
"""Finer tiles are not tried where counting the nonempty ones would take longer than tracing does."""
MAX_SCORES_AT_ONCE = 2**24
"""Largest number of scores over all batch entries that share a tile (64 MiB in float32) …"""
MIN_TILE_SCORES = 2**12
"""… except that tiles do not get smaller than 64 x 64."""
SYMBOLIC_TILE = {"cpu": 128}
"""Backend -> rows and columns of a tile where T or S is symbolic, and any number of rows is padded to whole tiles. On a
CPU, forward and backward, 128 against 512 takes a tenth of the time for T = 16, half of it for 600, and a quarter more
for 2,000."""
SYMBOLIC_TILE_ELSEWHERE = 512
"""Fewer, larger steps for an accelerator; not measured."""
MAX_SYMBOLIC_TILE = 1024
"""A few known queries have wider tiles, up to this; likewise a few keys."""
SYMBOLIC_SHARING = 64
"""Batch entries assumed to share a tile where their number is symbolic."""


class TileGrid(NamedTuple):
    """Tiles of `height` x `width` over T queries and S keys; the last ones are padded."""

    height: int
    width: int
    T: int
    S: int

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return -(-self.T // self.height)

    @property
    def columns(self) -> int:
        """Number of tile columns."""
        return -(-self.S // self.width)

    def pad(self, x: Any) -> Any:
        """Every array inside `x` with its axes T and S filled up to whole tiles by the last entry; size 1 stays."""
        if self.T % self.height == 0 and self.S % self.width == 0:
            return x
        return map_arrays(self._pad_array, x)

    def slice(self, x: Any, i: Any, j: Any) -> Any:
        """Every padded array inside `x` cut to tile `i, j`: a call becomes the call of one tile."""

        def slice_array(entry: NamedArray) -> Any:
            array = entry.array
            for axis, name in enumerate(entry.axes, np.ndim(array) - len(entry.axes)):
                if name in ("T", "S") and array.shape[axis] != 1:
                    index, size = (i, self.height) if name == "T" else (j, self.width)
                    array = jax.lax.dynamic_slice_in_dim(jnp.asarray(array), index * size, size, axis=axis)
            return array

        return map_arrays(slice_array, x)

    def every_tile(self) -> jax.Array:
        """All tiles, row by row, int32 `[n, 2]`."""
        number = jnp.arange(self.rows * self.columns, dtype=jnp.int32)
        return jnp.stack([number // self.columns, number % self.columns], axis=-1)

    def is_not_padding(self, j: jax.Array, rank: int) -> jax.Array:
        """False for columns that only fill up the last tiles, `[1, …, width]` with `rank` axes.

        Padding rows repeat the last row, and are cut off.
        """
        if self.S % self.width == 0:
            return jnp.ones((1,) * rank, bool)
        columns = j * self.width + jnp.arange(self.width, dtype=j.dtype) < self.S
        return columns.reshape((1,) * (rank - 1) + columns.shape)

    def coverage(self, mask: Mask, q_pos: Any, k_pos: Any) -> BlockCoverage:
        """What a mask says about the tiles; mask and positions are padded."""
        q_low, q_high = (x[..., :, None] for x in low_and_high(q_pos, self.height))
        k_low, k_high = (x[..., None, :] for x in low_and_high(k_pos, self.width))
        ranges = TileRanges(self.rows, self.columns, self.height, self.width, q_low, q_high, k_low, k_high)
        return mask.block_coverage(ranges)

    def _pad_array(self, entry: NamedArray) -> Any:
        missing = {"T": self.rows * self.height - self.T, "S": self.columns * self.width - self.S}
        shape = np.shape(entry.array)
        named = zip(entry.axes, shape[len(shape) - len(entry.axes) :], strict=True)
        array = entry.array
        for axis, (name, size) in enumerate(named, -len(entry.axes)):
            count = missing.get(name, 0) if size != 1 else 0
            array = array if is_static(count) and count == 0 else pad_with_last(array, axis, count)
        return array


@short_repr
class TileSchedule(NamedTuple):
    """The tiles to compute, int32 `[n, 2]`: first those in which every pair may attend, then those to be masked.

    Two lists are two scans, so that the program of the full tiles contains no mask. A grid in place of the second
    stands for all its tiles, where their number is symbolic.
    """

    full: np.ndarray
    masked: np.ndarray | TileGrid

    def scan(self, step: Callable, carry: Any) -> Any:
        """`carry = step(carry, i, j, masked)` over all tiles.

        Each step is recomputed by its derivatives: without `checkpoint`, whatever depends on positions alone would be
        saved for every tile, which is quadratic.
        """
        # A list of unknown length is made here: derivative rules may not close over traced arrays.
        all_masked = self.masked.every_tile() if isinstance(self.masked, TileGrid) else self.masked
        for tiles, masked in ((self.full, False), (all_masked, True)):
            if tiles.shape[0] != 0:

                def body(carry: Any, tile: Any, masked: bool = masked) -> tuple[Any, None]:
                    return step(carry, *tile, masked), None

                carry, _ = jax.lax.scan(jax.checkpoint(body), carry, (tiles[:, 0], tiles[:, 1]))
        return carry


@struct
class TiledCall:
    """A projected, padded call and its tiles.

    nonempty: bool `[rows, columns]`, the tiles with an allowed pair where only the running program knows, else None
    """

    call: AttentionCall = part_field()
    nonempty: jax.Array | None = data_field()
    grid: TileGrid

    def tile(self, i: jax.Array, j: jax.Array) -> tuple[AttentionCall, jax.Array | None]:
        """The call of tile `i, j`, and whether that tile is nonempty (None: certainly)."""
        return self.grid.slice(self.call, i, j), None if self.nonempty is None else self.nonempty[i, j]


def make_tiled_call(grid: TileGrid, call: AttentionCall) -> tuple[TiledCall, TileSchedule]:
    """Project queries and keys once, pad every array to whole tiles, list the tiles to compute."""
    query, key = call.score.project(*call.score.center(call.query, call.key))
    call = grid.pad(call.replace(query=query, key=key))
    coverage, schedule = schedule_tiles(grid, call)
    nonempty = coverage.nonempty_at_runtime
    tiled = TiledCall(call, nonempty if isinstance(nonempty, jax.Array) else None, grid)
    return _pvary(tiled) if pvary_axes(tiled) else tiled, schedule


def schedule_tiles(grid: TileGrid, call: AttentionCall) -> tuple[BlockCoverage, TileSchedule]:
    """Coverage of a padded call, and the tiles to compute. A tile with padding columns is never full."""
    everything = np.ones((grid.rows, grid.columns) if is_static(grid.rows, grid.columns) else (1, 1), bool)
    coverage = BlockCoverage(everything, everything, everything)
    if call.mask is not None:
        coverage = grid.coverage(call.mask, call.query_positions, call.key_positions)
    if not is_static(grid.rows, grid.columns):
        return coverage, TileSchedule(full=np.zeros((0, 2), np.int32), masked=grid)
    full = coverage.full & ((np.arange(1, grid.columns + 1) * grid.width <= grid.S)[None, :])
    schedule = TileSchedule(
        full=np.argwhere(coverage.nonempty & full).astype(np.int32),
        masked=np.argwhere(coverage.nonempty & ~full).astype(np.int32),
    )
    return coverage._replace(full=full), schedule


def make_tile_grid(call: AttentionCall, tile: tuple[int, int] | None = None, sharing: int = 1) -> TileGrid:
    """Tiles as equal as possible: 768 rows are 2 x 384, not 512 and 256 padded.

    One query against a million keys has long tiles; where several batch entries (`sharing`) are in one tile, it is
    smaller. Under a mask known when traced it is as fine as costs least: a narrow window leaves most of a large tile
    empty. Where T or S is symbolic, tiles are small, as nobody knows how much of them is padding.
    """
    rows, columns = call.score_shape[-2:]

    def grid_of(height: int, width: int) -> TileGrid:
        return TileGrid(_equal_part(rows, height), _equal_part(columns, width), rows, columns)

    if tile is not None:
        return grid_of(*tile)
    largest, aspect = MAX_TILE_SCORES.get(jax.default_backend(), MAX_TILE_SCORES_ELSEWHERE)
    sharing = sharing if is_static(sharing) else SYMBOLIC_SHARING
    area = max(min(largest, MAX_SCORES_AT_ONCE // sharing) // call.score.numbers_per_pair, MIN_TILE_SCORES)
    if not is_static(rows, columns):
        return grid_of(*_symbolic_tile(area, rows, columns))
    width = math.isqrt(area // aspect)
    grid = grid_of(area // min(columns, width), area // min(rows, area // width))
    return grid if call.mask is None else _finer_grid(grid, call, grid_of)


def _symbolic_tile(area: int, rows: Any, columns: Any) -> tuple[int, int]:
    """Height and width of tiles over a symbolic number of rows, columns, or both."""
    side = min(SYMBOLIC_TILE.get(jax.default_backend(), SYMBOLIC_TILE_ELSEWHERE), math.isqrt(area))
    known_rows, known_columns = (min(size, side) if is_static(size) else side for size in (rows, columns))
    return tuple(min(side * side // known, MAX_SYMBOLIC_TILE) for known in (known_columns, known_rows))


def _finer_grid(grid: TileGrid, call: AttentionCall, grid_of: Callable[[int, int], TileGrid]) -> TileGrid:
    """The cheapest of this grid and finer ones, where it is known when traced which tiles are empty."""
    if any(isinstance(x, jax.Array) for x in jax.tree.leaves((call.mask, call.query_positions, call.key_positions))):
        return grid
    finer = {grid_of(-(-grid.height // n), -(-grid.width // n)): cost for n, cost in FINER_TILE_COST.items()}
    finer = {
        grid: cost
        for grid, cost in finer.items()
        if grid.height * grid.width >= MIN_TILE_SCORES and grid.rows * grid.columns <= MAX_TILES_COUNTED
    }
    return min(finer, key=lambda grid: finer[grid] * _nonempty_tiles(grid, call), default=grid)


def _nonempty_tiles(grid: TileGrid, call: AttentionCall) -> int:
    return int(schedule_tiles(grid, grid.pad(call))[0].nonempty.sum())


def _equal_part(size: int, at_most: int) -> int:
    return -(-size // -(-size // at_most)) if is_static(size) else at_most


def _pvary(tiled: TiledCall) -> TiledCall:
    """Under `shard_map`, make every array vary over all mesh axes: derivatives are then summed over devices once.

    Not so the arrays that user functions close over, which have a fixed type in their jaxpr. Their derivatives are
    summed over devices in every tile, and so every device must compute every tile: a collective inside a `lax.cond`
    that only some devices enter would wait for ever.
    """
    if find_parts(ClosedFunction, (tiled.call.score, tiled.call.mods)):
        tiled = TiledCall(tiled.call, None, tiled.grid)

    def is_closed(x: Any) -> bool:
        return isinstance(x, ClosedFunction)

    return jax.tree.map(lambda x: x if is_closed(x) else pvary_like(x, tiled), tiled, is_leaf=is_closed)
