"""The blockwise implementation: from a checked call to its output, stage by stage.

AttentionCall -> TiledCall (projected, padded, coverage) -> scan_tiles -> output
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from jax_attention.implementations.base import Implementation
from jax_attention.implementations.blockwise import row_blocks
from jax_attention.implementations.blockwise.closure_convert import closure_convert
from jax_attention.implementations.blockwise.map_batch import batch_may_be_mapped, map_batch
from jax_attention.implementations.blockwise.nan_guard import zero_unused
from jax_attention.implementations.blockwise.tile_scan import scan_tiles
from jax_attention.implementations.blockwise.tiled_call import TileGrid, make_tile_grid, make_tiled_call
from jax_attention.implementations.call import AttentionCall, AttentionOutput, with_batch_index


@dataclasses.dataclass(frozen=True)
class Blockwise(Implementation):
    """Attention in tiles, `implementation="blockwise"`: any rule, any derivative, memory linear in T.

        tiles of at most tile[0] queries x tile[1] keys, as equal as possible

    Args:
        tile: rows and columns of a tile, or None to choose. Rules that need whole rows take as many rows, and all
            columns. Memory grows with their product, times all batch dimensions where these share a tile (on
            accelerators, on several devices, and for plain functions). The result depends on them by rounding only.

    Returns:
        An implementation, for the argument `implementation` of all attention functions.

    Raises:
        ValueError: if `tile` is not two positive integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import Blockwise, attend
        >>> x = jnp.ones((1000, 2))
        >>> attend(x, x, x, implementation=Blockwise(tile=(128, 500))).shape
        (1000, 2)

    Reference:
        Dao et al. (2022), "FlashAttention", section 3.1.
    """

    name: ClassVar[str] = "blockwise"
    tile: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.tile is None:
            return
        sizes = self.tile if isinstance(self.tile, (tuple, list)) else ()
        if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"tile: expected (rows, columns), two positive integers, got {self.tile!r}.")
        object.__setattr__(self, "tile", tuple(sizes))

    def why_not(self, call: AttentionCall) -> str | None:
        return None

    def attend(self, call: AttentionCall) -> jax.Array:
        if 0 in call.score_shape:
            return jnp.zeros((*call.score_shape[:-1], call.value.shape[-1]), call.query.dtype)
        if not call.normalize.one_pass:
            return row_blocks.attend(call, self.tile)
        grid = make_tile_grid(call, self.tile, sharing=1 if _is_mapped(call) else call.batch_size)
        operands = call.in_compute_dtype().in_logarithms()
        if call.has_function:
            operands = closure_convert((grid.height, grid.width), operands)
        if call.dropout is not None:
            operands = with_batch_index(operands)
        if call.mask is not None:
            operands = zero_unused(grid, operands)
        run = partial(attend_tiles, grid)
        output = map_batch(run, operands) if _is_mapped(operands) else run(operands)
        return output.astype(call.query.dtype)

    def weights(self, call: AttentionCall) -> jax.Array:
        return row_blocks.weights(call, self.tile)

    def attend_with_stats(self, call: AttentionCall) -> AttentionOutput:
        return row_blocks.attend_with_stats(call, self.tile)._replace(output=self.attend(call))


def _is_mapped(call: AttentionCall) -> bool:
    return call.batch_shape != () and batch_may_be_mapped(call)


def attend_tiles(grid: TileGrid, call: AttentionCall) -> jax.Array:
    """Output `[*batch, T, E]`; batch dimensions that are left stay in every tile."""
    tiled, schedule = make_tiled_call(grid, call)
    sums, row_max = scan_tiles(tiled, schedule)
    denominator = tiled.call.normalize.denominator(sums.total, row_max)
    # O / l. Its derivative by l is FlashAttention-2's D = rowsum(dO * O), once per row, before the backward scan.
    return (sums.values / denominator)[..., : grid.T, :]
