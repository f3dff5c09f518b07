"""Checks of blockwise evaluation: any tiles give the dense result, and its derivatives."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jax_attention import normalizers
from jax_attention.implementations.blockwise import Blockwise
from jax_attention.testing.derivative_checks import derivatives
from jax_attention.testing.report import check_equal
from jax_attention.testing.trial import Trial, fast_jit

TILES = ((2, 3), (4, 2))
"""Rows and columns. They do not divide T and S in all shapes, and are more than T or S in some."""
CURE = (
    "A score, mod or mask must treat each pair by itself: it sees one tile at a time, and q_pos and k_pos say where. "
    "What needs a whole row belongs into a normalizer; one that has row_max needs rescale too."
)


def positions_of(trial: Trial) -> list[dict[str, np.ndarray]]:
    """No positions, 0, 1, 2, …, and the same out of order."""
    rng = np.random.default_rng(trial.seed)
    query, key = (rng.permutation(size).astype(np.int32) for size in (trial.T, trial.S))
    return [{}, {"query_positions": query, "key_positions": key}]


def tiles_and_dense(trial: Trial) -> None:
    """The output in tiles is that of the dense formula, for every shape, also for positions out of order.

    A normalizer of whole rows would hide a mod that looks at them: such a rule is checked under a softmax too.
    """
    first = trial
    if not trial.rule["normalize"].one_pass:
        first = trial.replace(rule={**trial.rule, "normalize": normalizers.softmax()})
        _check_tiles(trial, TILES[0], {})
    for tile, positions in zip(TILES, positions_of(trial), strict=True):
        _check_tiles(first, tile, positions)
    for one in trial.in_every_shape()[1:]:
        _check_tiles(one, TILES[0], {})


def _check_tiles(trial: Trial, tile: tuple[int, int], positions: dict[str, Any]) -> None:
    @fast_jit
    def both(*operands: jax.Array) -> list[jax.Array]:
        return [trial.attend(*operands, implementation=x, **positions) for x in (Blockwise(tile=tile), "reference")]

    actual, expected = both(*trial.operands)
    given = f"{trial}, tiles of {tile[0]} x {tile[1]}{', positions out of order' if positions else ''}"
    check_equal({"the output": actual}, {"the output": expected}, given, CURE)


def derivatives_in_tiles(trial: Trial) -> None:
    """Gradients, tangents and second derivatives in tiles are those of the dense formula."""
    tile = TILES[0]
    direction = trial.direction()
    actual, expected = (
        derivatives(trial, implementation=implementation)(trial.point, direction)
        for implementation in (Blockwise(tile=tile), "reference")
    )
    cure = f"Declare arrays by array_field; rescale must be differentiable in those of its normalizer. {CURE}"
    check_equal(actual, expected, f"{trial}, tiles of {tile[0]} x {tile[1]}", cure)
