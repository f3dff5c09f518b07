"""Markdown tables and the numbers in them."""

from __future__ import annotations

from collections.abc import Iterable


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; None becomes a dash."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join("-" if x is None else str(x) for x in line) + " |\n" for line in lines)


def number(x: float | None) -> str | None:
    """A number with three significant digits, or all digits before the point if there are more."""
    if x is None:
        return None
    return f"{x:,.2f}" if x < 10 else f"{x:,.1f}" if x < 100 else f"{x:,.0f}"


def ratio(x: float | None) -> str | None:
    """A ratio of times with at most three significant digits."""
    return None if x is None else f"{x:.2f}" if x < 10 else f"{x:.1f}"
