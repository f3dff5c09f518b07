"""One check of one rule: its result, and the parts that fail it by themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from jax_attention.attention.prepare import check_parts
from jax_attention.core.text import printable
from jax_attention.testing.report import CheckFailed, CheckResult
from jax_attention.testing.trial import Rule, Trial

Check = Callable[[Trial], str | None]
"""It fails by an exception, and may return a note on what it covered."""


def complete_rule(given: Rule) -> Rule:
    """All four parts, functions wrapped and defaults filled in."""
    rule = check_parts(**given)
    return {name: rule[name] for name in given}


def run_check(name: str, check: Check, trial: Trial, given: Rule, why_not: str) -> CheckResult:
    """The line of a check in the report; it does not run if there is a reason why not."""
    if why_not:
        return CheckResult(name, "not run", why_not)
    error = _error_of(check, trial)
    if isinstance(error, str):
        return CheckResult(name, "ok", error)
    parts = _failing_parts(check, trial, given)
    if isinstance(error, CheckFailed):
        return CheckResult(name, "FAILED", "", error.given, error.difference, parts, error.cure)
    return CheckResult(name, "FAILED", "", str(trial), describe_error(error), parts)


def _error_of(check: Check, trial: Trial) -> str | Exception:
    """The note of a check that succeeds, or the error that it raises."""
    try:
        return check(trial) or ""
    except Exception as error:  # also whatever a user's function raises
        return error


def _failing_parts(check: Check, trial: Trial, given: Rule) -> str:
    """The parts that fail the same check with defaults in the place of all others; nothing if there is only one."""
    alone = {f"mods[{i}] {mod!r}": {"mods": (mod,)} for i, mod in enumerate(complete_rule(given)["mods"])}
    alone |= {name: {name: given[name]} for name in ("score", "mask", "normalize") if given[name] is not None}
    if len(alone) < 2:
        return ""
    nothing: Rule = {"score": None, "mods": (), "mask": None, "normalize": None}
    failing = [
        label
        for label, part in alone.items()
        if not isinstance(_error_of(check, trial.replace(rule=complete_rule({**nothing, **part}))), str)
    ]
    return ", ".join(failing) or "only together"


def describe_error(error: Exception, limit: int = 600) -> str:
    """Kind and message of an error, on one line."""
    return textwrap.shorten(printable(f"{type(error).__name__}: {error}"), limit, placeholder=" …")
