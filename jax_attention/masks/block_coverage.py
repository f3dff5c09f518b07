"""Block coverage of a mask: tiles that are empty (skipped), full (not masked), or need the mask pair by pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.short_repr import short_repr
from jax_attention.core.sizes import is_static


@short_repr
class BlockCoverage(NamedTuple):
    """Three tables over tiles, bool `[tile rows, tile columns]`.

    They may be cautious (an empty tile called nonempty, a full one not called full), but never wrong the other way.

    nonempty:            False where the mask allows no pair; known during tracing (NumPy)
    full:                True where the mask allows every pair; known during tracing (NumPy)
    nonempty_at_runtime: as `nonempty`, but a JAX array where only the running program knows (lengths, segment ids)

    Where the number of tiles is symbolic, the NumPy tables are `[1, 1]`: nothing is known of single tiles.
    """

    nonempty: np.ndarray
    full: np.ndarray
    nonempty_at_runtime: Any

    def __and__(self, other: BlockCoverage) -> BlockCoverage:
        at_runtime = self.nonempty_at_runtime & other.nonempty_at_runtime
        return BlockCoverage(self.nonempty & other.nonempty, self.full & other.full, at_runtime)

    def __or__(self, other: BlockCoverage) -> BlockCoverage:
        at_runtime = self.nonempty_at_runtime | other.nonempty_at_runtime
        return BlockCoverage(self.nonempty | other.nonempty, self.full | other.full, at_runtime)

    def __invert__(self) -> BlockCoverage:
        return BlockCoverage(~self.full, ~self.nonempty, ~self.full)  # the running program knows no full tiles


@short_repr
class TileRanges(NamedTuple):
    """A grid of tiles and the range of positions in each: the argument of `Mask.block_coverage`.

    Ranges are NumPy where positions are known during tracing: `q_low`, `q_high` `[tile rows, 1]`, `k_low`, `k_high`
    `[1, tile columns]`, each after batch dimensions. Arrays inside masks with axes T and S are padded to whole tiles.
    """

    rows: int
    columns: int
    height: int
    width: int
    q_low: Any
    q_high: Any
    k_low: Any
    k_high: Any

    def unknown(self) -> BlockCoverage:
        """The coverage of a mask of which nothing is known: every tile is computed and masked."""
        return self.coverage(np.ones((), bool), np.zeros((), bool))

    def coverage(self, nonempty: Any, full: Any) -> BlockCoverage:
        """The coverage from tables with batch dimensions, NumPy or JAX: nonempty in any batch element, full in all."""
        shape = (self.rows, self.columns)
        if not is_static(*shape):
            at_runtime = jnp.any(_flat_batch(jnp.asarray(nonempty), shape), axis=0)
            return BlockCoverage(np.ones((1, 1), bool), np.zeros((1, 1), bool), at_runtime)
        if isinstance(nonempty, jax.Array) or isinstance(full, jax.Array):  # known only to the running program
            at_runtime = jnp.any(_flat_batch(nonempty, shape), axis=0)
            return BlockCoverage(np.ones(shape, bool), np.zeros(shape, bool), at_runtime)
        nonempty, full = _flat_batch(nonempty, shape).any(0), _flat_batch(full, shape).all(0)
        return BlockCoverage(nonempty, full, nonempty)


MAX_ENUMERATED_PAIRS = 2**20
"""`all_rows_used` enumerates pairs in NumPy during tracing; beyond 1,024 x 1,024 that would slow tracing down."""


def all_rows_used(mask: Any, q_pos: Any, k_pos: Any) -> bool:
    """Whether it is known during tracing that every query has an allowed key and every key an allowed query.

    Positions are `[..., T]` and `[..., S]`. False if it is not known: the caller then zeroes unused rows.
    """
    known = all(isinstance(x, np.ndarray) and x.size for x in (q_pos, k_pos))
    pairs = q_pos.shape[-1] * k_pos.shape[-1]
    if not known or pairs > MAX_ENUMERATED_PAIRS or any(isinstance(x, jax.Array) for x in jax.tree.leaves(mask)):
        return False
    rows, columns = q_pos[..., :, None], k_pos[..., None, :]
    tiles = TileRanges(q_pos.shape[-1], k_pos.shape[-1], 1, 1, rows, rows, columns, columns)
    allowed = mask.block_coverage(tiles).full
    return bool(allowed.any(0).all() and allowed.any(1).all())


def low_and_high(x: Any, size: int) -> tuple[Any, Any]:
    """Minimum and maximum of each block of `size` entries of the last axis; an axis of size 1 is one block."""
    if x.shape[-1] == 1:
        return x, x
    blocks = x.reshape(*x.shape[:-1], -1, size)
    return blocks.min(-1), blocks.max(-1)


def _flat_batch(table: Any, shape: tuple[int, int]) -> Any:
    """The table with its batch dimensions flattened, `[batch size, tile rows, tile columns]`."""
    xp = jnp if isinstance(table, jax.Array) else np
    return xp.broadcast_to(table, jnp.broadcast_shapes(np.shape(table), shape)).reshape(-1, *shape)
