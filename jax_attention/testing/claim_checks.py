"""Checks of what a part says about itself: a false claim gives wrong results without a message."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.attention.prepare import prepare_heads
from jax_attention.core.numerics import forbid
from jax_attention.implementations.blockwise.tiled_call import make_tile_grid, schedule_tiles
from jax_attention.implementations.call import AttentionCall
from jax_attention.masks.block_coverage import BlockCoverage
from jax_attention.testing.report import CheckFailed, check_equal
from jax_attention.testing.tile_checks import TILES, positions_of
from jax_attention.testing.trial import Trial


def class_attributes(trial: Trial) -> None:
    """The tile of an `is_product` score is a product, and only parts with `may_forbid_pairs` give -inf."""
    call, _ = prepare_heads(*trial.operands, **trial.rule)
    query, key = call.score.project(*call.score.center(call.query, call.key))
    z = call.score.tile(query, key)
    if call.score.is_product:
        cure = "is_product = True promises tile(query, key) = query @ key^T, as linear attention computes it."
        check_equal({"the score": z}, {"the score": query @ jnp.swapaxes(key, -1, -2)}, trial, cure)
    _check_forbids("score", call.score, z, trial)
    for i, mod in enumerate(call.mods):
        z = mod(forbid(z, jnp.ones(z.shape, bool))[0], *call.pair_positions)
        _check_forbids(f"mods[{i}]", mod, z, trial)


def _check_forbids(name: str, part: Any, z: jax.Array, trial: Trial) -> None:
    count = int(jnp.isneginf(z).sum())
    if count and not part.may_forbid_pairs:
        cure = "Leave may_forbid_pairs True: NaN in values at pairs with score -inf would reach the output."
        raise CheckFailed(
            f"-inf in {count} of {z.size} scores of {name}, which has may_forbid_pairs = False", trial, cure
        )


def block_coverage(trial: Trial) -> None:
    """No tile is called empty that has an allowed pair, or full that has a forbidden one."""
    for one in trial.in_every_shape():
        for positions in positions_of(one):
            call, _ = prepare_heads(*one.operands, **one.rule, **positions)
            for tile in TILES:
                check_coverage(call, tile, one)


def check_coverage(call: AttentionCall, tile: tuple[int, int], given: object = "") -> BlockCoverage:
    """Fail if the mask of the call claims too much about a tile; return what it claims."""
    grid = make_tile_grid(call, tile)
    coverage, _ = schedule_tiles(grid, grid.pad(call))
    pairs = np.asarray(call.mask(*call.pair_positions))
    pairs = np.broadcast_to(pairs, (*pairs.shape[:-2], *call.score_shape[-2:]))
    for i, j in np.ndindex(grid.rows, grid.columns):
        rows, columns = _range(i, grid.height, grid.T), _range(j, grid.width, grid.S)
        block = pairs[..., rows.start : rows.stop, columns.start : columns.stop]
        nonempty = coverage.nonempty[i, j] and np.asarray(coverage.nonempty_at_runtime)[i, j]
        wrong = "empty, has an allowed pair" if block.any() and not nonempty else None
        wrong = "full, has a forbidden pair" if coverage.full[i, j] and not block.all() else wrong
        if wrong is not None:
            raise CheckFailed(
                f"the tile of queries {rows.start} … {rows.stop - 1} and keys {columns.start} … {columns.stop - 1}, "
                f"which block_coverage calls {wrong}",
                f"{given}, tiles of {grid.height} x {grid.width}, "
                f"query positions {_shown(call.query_positions)}, key positions {_shown(call.key_positions)}",
                "nonempty may be False only if no pair within q_low … q_high and k_low … k_high may attend, and full "
                "True only if all may. Without block_coverage the mask is computed pair by pair.",
            )
    return coverage


def _range(index: int, size: int, end: int) -> range:
    return range(index * size, min((index + 1) * size, end))


def _shown(positions: object) -> str:
    return np.array2string(np.asarray(positions).reshape(-1), separator=", ")
