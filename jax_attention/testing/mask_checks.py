"""Checks of what a mask forbids: empty rows, NaN at forbidden pairs, and keys that nobody may attend to."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jax_attention import masks
from jax_attention.implementations.blockwise import Blockwise
from jax_attention.testing.report import check_equal, check_finite, check_zero
from jax_attention.testing.tile_checks import TILES
from jax_attention.testing.trial import Trial, fast_jit

Results = dict[str, jax.Array]


def hide(trial: Trial, rows: list[int], columns: list[int]) -> Trial:
    """The same trial under a mask that also forbids all pairs of some queries and of some keys."""

    where = np.ones((trial.T, trial.S), bool)
    where[rows], where[:, columns] = False, False
    own = trial.rule["mask"]
    mask = masks.dense(where) if own is None else own & masks.dense(where)
    return trial.replace(rule={**trial.rule, "mask": mask})


def forbidden_keys_removed(trial: Trial) -> None:
    """Keys that no query may attend to count for nothing: without them the output is the same."""
    hidden = [trial.S // 2, trial.S - 1]
    some, options = trial.take("S", [s for s in range(trial.S) if s not in hidden])
    with_keys = fast_jit(hide(trial, [], hidden).attend)(*trial.operands)
    without = fast_jit(lambda *x: trial.attend(*x, **options))(*some)
    cure = (
        "A normalizer must leave out pairs where `where` is False, whatever their score is: numerators 0, and sums "
        "over the others only. A score must not look at other keys."
    )
    check_equal({"the output": with_keys}, {"the output": without}, f"{trial}, keys {hidden} forbidden", cure)


def empty_rows(trial: Trial) -> None:
    """A query without keys has output 0 and gradient 0, a key without queries gradient 0, and all else is finite.

    NaN and infinity in that query and key change nothing, bit for bit.
    """
    row, column = trial.T // 2, trial.S // 2
    for name, run in _masked_runs(trial, row, column).items():
        clean = run(trial.point)
        given = f"{trial}, query {row} and key {column} forbidden, {name}"
        cure = "Divide by jnp.where(total > 0, total, 1), and select by where before a function that may be infinite."
        check_finite(clean, given, cure)
        check_zero(_hidden_results(trial, clean, row, column), given, cure)
        for poison in (np.nan, np.inf):
            point = dict(trial.point)
            point["query"] = point["query"].at[..., row, :, :].set(poison)
            point["key"] = point["key"].at[..., _key_row(trial, row, column), :, :].set(poison)
            point["value"] = point["value"].at[..., column, :, :].set(poison)
            cure = "A part must not mix rows: project query and key row by row."
            check_equal(run(point), clean, f"{given}, {poison} in both", cure, tolerance=0.0)


def _masked_runs(trial: Trial, row: int, column: int) -> dict[str, Callable[[Results], Results]]:
    """Output and gradients at a point, dense and in tiles."""
    masked = hide(trial, [row], [column])

    def make(implementation: object) -> Callable[[Results], Results]:
        def loss(point: Results) -> tuple[jax.Array, jax.Array]:
            output = masked.attend_at(point, implementation=implementation)
            return masked.loss(output), output

        @fast_jit
        def run(point: Results) -> Results:
            gradients, output = jax.grad(loss, has_aux=True)(point)
            return {"the output": output, **{f"the gradient by {name}": x for name, x in gradients.items()}}

        return run

    return {"dense": make("reference"), "in tiles": make(Blockwise(tile=TILES[0]))}


def _key_row(trial: Trial, row: int, column: int) -> int:
    """The row of the key that no allowed score depends on."""
    return row if trial.rule["score"].key_per_query else column


def _hidden_results(trial: Trial, results: Results, row: int, column: int) -> Results:
    key = _key_row(trial, row, column)
    rows = {
        "the output": row,
        "the gradient by query": row,
        "the gradient by key": key,
        "the gradient by value": column,
    }
    return {f"row {n} of {name}": results[name][..., n, :, :] for name, n in rows.items()}
