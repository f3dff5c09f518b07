"""`check_rule`: all checks of a rule, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import jax

from jax_attention.core.checks import fail_unless
from jax_attention.masks import Mask
from jax_attention.mods import Mod
from jax_attention.normalizers import Normalizer
from jax_attention.scores import Score
from jax_attention.testing import batch_checks, claim_checks, derivative_checks, mask_checks, tile_checks, value_checks
from jax_attention.testing.make_trial import make_trial
from jax_attention.testing.report import CheckResult, RuleReport
from jax_attention.testing.run_check import Check, complete_rule, describe_error, run_check
from jax_attention.testing.trial import Trial

SHAPES = ((5, 7), (6, 4), (1, 6), (3, 1))
"""T < S, T > S, one query, one key."""
CHECKS: dict[str, Check] = {
    "every shape": value_checks.every_shape,
    "dtypes": value_checks.dtypes,
    "jit = eager": value_checks.jit_and_eager,
    "large scores": value_checks.large_scores,
    "one query at a time": value_checks.one_query_at_a_time,
    "grouped heads": batch_checks.grouped_heads,
    "batch elements": batch_checks.batch_elements,
    "vmap = batch": batch_checks.vmap_and_batch,
    "empty rows": mask_checks.empty_rows,
    "forbidden keys removed": mask_checks.forbidden_keys_removed,
    "class attributes": claim_checks.class_attributes,
    "block coverage": claim_checks.block_coverage,
    "tiles = dense": tile_checks.tiles_and_dense,
    "derivatives in tiles": tile_checks.derivatives_in_tiles,
    "finite differences": derivative_checks.finite_differences,
}
"""Every check by its name in the report."""


def check_rule(
    score: Score | Callable | None = None,
    mods: tuple[Mod | Callable, ...] = (),
    mask: Mask | Callable | None = None,
    normalize: Normalizer | Callable | None = None,
    *,
    shapes: tuple[tuple[int, int], ...] = SHAPES,
    heads: int | None = None,
    head_size: int | None = None,
    skip: tuple[str, ...] = (),
    seed: int = 0,
) -> RuleReport:
    """Check that a rule of your own keeps what `attend` promises for every rule.

    Random operands go through the rule in several shapes, tiles and dtypes. Each check compares two ways to compute one
    number, so nothing has to be known about the rule: tiles with the dense formula, one query with all, `vmap` with a
    batch, derivatives with difference quotients, forbidden keys with absent ones. Whether the rule is the one that you
    meant, only an oracle of your own can tell.

    Numbers are compared in float64, also where `jax_enable_x64` is off, if the rule can compute in it.

    Args:
        score: as in `attend`, like the other parts.
        mods: as in `attend`.
        mask: as in `attend`.
        normalize: as in `attend`.
        shapes: numbers of queries and keys, T and S. Arrays with an axis "T" or "S" replace them by their own.
        heads: N; None: as many as the arrays of the parts have, or 4. Functions with arrays `[N, 1, 1]` need it.
        head_size: H; None: as the arrays of the parts have it, or 3. Functions with arrays over features need it.
        skip: names of checks that are not to run: "finite differences" for a straight-through estimator, whose
            derivative is on purpose not that of its output.
        seed: of the operands.

    Returns:
        A `RuleReport`: print it to see a table; `ok`; `assert_ok()` raises an `AssertionError` with the table.

    Raises:
        TypeError: if something else is passed for a part.
        ValueError: if `skip` names no check, or arrays of the parts do not fit each other.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import testing
        >>> report = testing.check_rule(mods=(lambda z, q_pos, k_pos: z - 0.1 * abs(q_pos - k_pos),))
        >>> report.ok, len(report.results)
        (True, 16)
    """
    unknown = [name for name in skip if name not in CHECKS]
    fail_unless(not unknown, f"skip: expected names of checks, {', '.join(CHECKS)}, got {', '.join(unknown)}.")
    given = {"score": score, "mods": mods, "mask": mask, "normalize": normalize}
    trial = make_trial(complete_rule(given), shapes, heads, head_size, seed)
    x64 = bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]
    with jax.enable_x64(True):
        reason = _why_not_float64(trial)
    with jax.enable_x64(x64 or reason is None):
        results = [_float64_result(reason, x64)]
        trial = trial.replace(dtype="float32" if reason else "float64")
        for name, check in CHECKS.items():
            results.append(run_check(name, check, trial, given, _why_not(name, trial, skip, reason, results)))
    shown = ", ".join(
        f"{name}={part!r}" for name, part in complete_rule(given).items() if given[name] not in (None, ())
    )
    return RuleReport(shown, tuple(results))


def _why_not_float64(trial: Trial) -> str | None:
    try:
        casts = value_checks.casts_down(trial.replace(dtype="float64"))
    except Exception as error:  # whatever a user's function raises
        return f"the rule raises {describe_error(error, limit=80)}"
    return "the rule casts float64 to float32: cast to z.dtype" if casts else None


def _float64_result(reason: str | None, x64: bool) -> CheckResult:
    if reason is None:
        return CheckResult("float64", "ok", "all numbers below are compared in float64")
    if x64:
        return CheckResult("float64", "FAILED", difference=reason)
    return CheckResult("float64", "not run", f"{reason} (jax_enable_x64 is off)")


def _why_not(name: str, trial: Trial, skip: tuple[str, ...], reason: str | None, before: list[CheckResult]) -> str:
    """The reason why a check does not run, or an empty string."""
    if name in skip:
        return "skipped"
    if any(result.name == "every shape" and result.status == "FAILED" for result in before):
        return "there is no output"
    if name == "block coverage" and trial.rule["mask"] is None:
        return "there is no mask"
    return "needs float64" if name == "finite differences" and reason else ""
