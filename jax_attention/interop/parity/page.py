"""The HTML page of a report: verdict, figure of the error by layer, table of every row. No scripts, no network."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

from jax_attention.interop.parity.rounding import ParityRow

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #c9d1d9; --bar: #2f6fb2;
  --wrong: #c2410c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e6e9ee; --soft: #9aa4b0; --line: #3b434d; --bar: #6aa9e9; --wrong: #ff9d5c; }
}
body { margin: 0 auto; padding: 1rem 1.25rem 3rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Noto Sans", sans-serif; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
.verdict { font-size: 1.1rem; padding: .5rem .8rem; border-left: 4px solid var(--bar); overflow-wrap: anywhere; }
.verdict.wrong, tr.wrong { border-color: var(--wrong); color: var(--wrong); }
p, figcaption { color: var(--soft); } .verdict { color: var(--ink); }
figure, .wide { margin: 1rem 0; overflow-x: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.bar { fill: var(--bar); } rect.wrong { fill: var(--wrong); }
.dot { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.limit { stroke: var(--wrong); stroke-dasharray: 4 3; } .grid { stroke: var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:nth-child(2), td:nth-child(2), td:last-child { text-align: left; }
th { color: var(--soft); font-weight: 600; }
"""
WHOLE = ("stream", "logits")
IN = "in"
"""Label of the column before the layers of a stack."""
LEFT, TOP, HEIGHT, STEP, BAR = 56, 14, 190, 26, 12
"""Margins, height, width of a column and of a bar, in pixels."""


def page(
    title: str,
    dtype: str,
    verdict: str,
    rows: Sequence[ParityRow],
    cells: Sequence[Sequence[str]],
    notes: Iterable[str],
) -> str:
    """The page as one HTML document."""
    wrong = "" if verdict == "rounding" else " wrong"
    heading = html.escape(f"{title}, {dtype}")
    about = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{heading}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{heading}</h1>\n"
        f'<div class="verdict{wrong}">{html.escape(verdict[0].upper() + verdict[1:])}</div>\n{about}{_figure(rows)}\n'
        f'<div class="wide"><table>\n{_table(rows, cells)}</table></div>\n'
        "<p>Every point except stream and logits is local: the JAX part got the input that the part in transformers "
        "got. Used is the largest difference over the one that rounding explains.</p>\n</body>\n</html>\n"
    )


def _table(rows: Sequence[ParityRow], cells: Sequence[Sequence[str]]) -> str:
    head, *body = cells
    lines = ["<tr>" + "".join(f"<th>{html.escape(x)}</th>" for x in head) + "</tr>\n"]
    for row, line in zip(rows, body, strict=True):
        kind = "" if row.equal else ' class="wrong"'
        lines.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(x)}</td>" for x in line) + "</tr>\n")
    return "".join(lines)


# --- The figure ------------------------------------------------------------------------------------------------------


def _figure(rows: Sequence[ParityRow]) -> str:
    """One column per layer: a bar for the worst of its parts, a ring for the stream after it."""
    columns = _columns(rows)
    powers = [math.ceil(_log_used(row)) for row in rows]
    low, high = min(-3, *powers), max(1, *powers)
    width = LEFT + STEP * len(columns) + 10

    def height(power: float) -> float:
        return TOP + HEIGHT * (high - power) / (high - low)

    parts = [_grid_lines(low, high, width, height)]
    for i, (name, column) in enumerate(columns):
        if name == IN and column[0].stack:
            x, y = LEFT + STEP * i + STEP / 2, TOP + HEIGHT + 30
            parts.append(f'<text x="{x}" y="{y}" text-anchor="middle">{column[0].stack}</text>')
        parts.append(_column(LEFT + STEP * i, name, column, height, low))
    label = "Difference over what rounding explains, by layer"
    svg = f'<svg role="img" aria-label="{label}" width="{width}" height="{TOP + HEIGHT + 34}">{"".join(parts)}</svg>'
    caption = (
        f"{label}, in powers of ten. Bars: the worst part of the layer by itself. Rings: the whole model up to there. "
        "Above the dashed line it is not rounding."
    )
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _columns(rows: Sequence[ParityRow]) -> list[tuple[str, list[ParityRow]]]:
    """Label and rows of each column: every layer, and the points before and after the layers of each stack."""
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: (row.stack, row.layer))]
    columns, stack = [], None
    for group in groups:
        first = group[0]
        label = str(first.layer) if first.layer is not None else "out" if first.stack == stack else IN
        columns.append((label, group))
        stack = first.stack
    return columns


def _log_used(row: ParityRow) -> float:
    """Decimal logarithm of the used part of the tolerance, cut to what can be drawn: -3 to 9. NaN is drawn at 9."""
    used = row.used
    if not used <= 1e9:  # true for NaN too
        return 9.0
    return math.log10(max(used, 1e-3))


def _grid_lines(low: int, high: int, width: int, height: Callable[[float], float]) -> str:
    lines = []
    for power in range(low, high + 1):
        y, kind = height(power), "limit" if power == 0 else "grid"
        lines.append(f'<line class="{kind}" x1="{LEFT - 6}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    return "".join(lines)


def _column(x: float, label: str, rows: Sequence[ParityRow], height: Callable[[float], float], low: int) -> str:
    base, middle, shapes = height(low), x + STEP / 2, []
    local = [row for row in rows if row.point not in WHOLE]
    if local:
        worst = max(local, key=_log_used)
        y, kind = height(_log_used(worst)), "bar" if all(row.equal for row in local) else "bar wrong"
        hint = f"<title>{html.escape(worst.point)}: {worst.used:.2g}</title>"
        box = f'x="{middle - BAR / 2}" y="{y:.1f}" width="{BAR}" height="{base - y:.1f}"'
        shapes.append(f'<rect class="{kind}" {box}>{hint}</rect>')
    for row in rows:
        if row.point in WHOLE:
            hint = f"<title>{row.point}: {row.used:.2g}</title>"
            shapes.append(
                f'<circle class="dot" cx="{middle}" cy="{height(_log_used(row)):.1f}" r="3.5">{hint}</circle>'
            )
    shapes.append(f'<text x="{middle}" y="{base + 16:.1f}" text-anchor="middle">{label}</text>')
    return "".join(shapes)
