"""What the checks of a rule found: a line for each, and for a failure the input, the difference and the cure."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

TOLERANCES = {"float64": 1e-9, "float32": 1e-4}
"""Relative to 1 + the largest number. A correct rule makes a few roundings, 1e-16 or 6e-8, which it may magnify by
thousands; a wrong one differs in the first digits."""
WIDTH = 100


class CheckFailed(Exception):
    """The difference that a check found, the input with which it did, and what to change."""

    def __init__(self, difference: str, given: Any, cure: str):
        super().__init__(difference)
        self.difference, self.given, self.cure = difference, str(given), cure


class CheckResult(NamedTuple):
    """One line of a report. The status is "ok", "FAILED", or "not run"; the note says what was checked, or why not."""

    name: str
    status: str
    note: str = ""
    given: str = ""
    """The input that failed."""
    difference: str = ""
    parts: str = ""
    """The parts of the rule that fail by themselves."""
    cure: str = ""

    def __str__(self) -> str:
        fields = {"input": self.given, "difference": self.difference, "parts": self.parts, "cure": self.cure}
        lines = [f"{self.name:<26}{self.status:<9}{self.note}".rstrip()]
        for label, text in fields.items():
            if text:
                indent = {"initial_indent": f"    {label:<12}", "subsequent_indent": " " * 16}
                lines += textwrap.wrap(text, WIDTH, break_long_words=False, **indent)
        return "\n".join(lines)


@dataclass(frozen=True)
class RuleReport:
    """The result of `check_rule`: `ok`, and a table by `str()`."""

    rule: str
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.status == "FAILED")

    def assert_ok(self) -> None:
        """Raise an `AssertionError` with the table if a check failed."""
        if not self.ok:
            raise AssertionError(f"\n{self}")

    def __str__(self) -> str:
        counts = {status: sum(x.status == status for x in self.results) for status in ("ok", "FAILED", "not run")}
        total = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        return "\n".join([f"rule: {self.rule}", *map(str, self.results), total])

    __repr__ = __str__


def check_equal(
    actual: dict[str, Any], expected: dict[str, Any], given: Any, cure: str, tolerance: float | None = None
) -> None:
    """Fail unless the named arrays are finite and equal up to the tolerance, by default that of their dtype."""
    for name, x in actual.items():
        x, y = np.asarray(x), np.asarray(expected[name])
        allowed = TOLERANCES[y.dtype.name] if tolerance is None else tolerance
        check_finite({name: x}, given, cure)
        allowed *= 1 + float(np.abs(y).max(initial=0.0))
        distance = float(np.abs(x.astype(np.float64) - y).max(initial=0.0))
        if not distance <= allowed:  # true for NaN too
            raise CheckFailed(f"{distance:.2g} in {name}, allowed {allowed:.1g}", given, cure)


def check_finite(arrays: dict[str, Any], given: Any, cure: str) -> None:
    """Fail unless the named arrays have neither NaN nor infinity."""
    for name, x in arrays.items():
        x = np.asarray(x).astype(np.float64)
        if not np.isfinite(x).all():
            found = "NaN" if np.isnan(x).any() else "infinity"
            raise CheckFailed(f"{found} in {name}, {int((~np.isfinite(x)).sum())} of {x.size} numbers", given, cure)


def check_zero(arrays: dict[str, Any], given: Any, cure: str) -> None:
    """Fail unless the named arrays are exactly 0."""
    for name, x in arrays.items():
        largest = float(np.abs(np.asarray(x).astype(np.float64)).max(initial=0.0))
        if largest != 0:  # true for NaN too
            raise CheckFailed(f"{largest:.2g} in {name}, expected 0", given, cure)
