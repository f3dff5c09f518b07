"""HTML for notebooks: a grid of cells, a table, a whole page in a frame. All text is escaped here and nowhere else.

Notebooks put the HTML of several results into one document, so it has no style sheet, no script and no fixed colours:
`currentColor` is dark on a light screen and light on a dark one.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np

from jax_attention.core.text import printable

CELL = 10
"""Size of a cell, in pixels of the browser."""


def show_grid(cells: np.ndarray, title: str, note: str) -> str:
    """A boolean matrix as an SVG picture, True filled, row 0 on top; with a line of code above and a note below."""
    rows, columns = cells.shape
    size = f'width="{CELL * columns}" height="{CELL * rows}" viewBox="0 0 {columns} {rows}"'
    lines = [f"M0 {y}H{columns}" for y in range(rows + 1)] + [f"M{x} 0V{rows}" for x in range(columns + 1)]
    svg = (
        f'<svg role="img" aria-label="{_escape(note)}" {size} style="overflow: visible; max-width: none">'
        f'<path fill="currentColor" opacity="0.8" d="{"".join(_runs(cells))}"/>'
        f'<path stroke="currentColor" stroke-width="0.05" opacity="0.4" d="{"".join(lines)}"/></svg>'
    )
    return f"<div><code>{_escape(title)}</code><div>{svg}</div><small>{_escape(note)}</small></div>"


def show_table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Lines of cells as a table; the first cell of each line is its heading."""
    style = ' style="text-align: left; vertical-align: top"'
    lines = ["".join(f"<th{style}>{_escape(text)}</th>" for text in head)] * bool(head)
    for first, *others in rows:
        cells = "".join(f"<td{style}>{_escape(text)}</td>" for text in others)
        lines.append(f"<th{style}>{_escape(first)}</th>{cells}")
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def show_page(page: str, *, height: int, scripts: bool = False) -> str:
    """A whole HTML document in a frame of its own, which neither its styles nor its scripts can leave.

    Without `allow-same-origin` the scripts of the page have no access to the notebook, its cookies and its kernel.
    """
    allowed = "allow-scripts" if scripts else ""
    style = f"width: 100%; height: {height}px; border: 0; resize: vertical; overflow: auto"
    return f'<iframe sandbox="{allowed}" style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _runs(cells: np.ndarray) -> Iterable[str]:
    """One rectangle for each run of True in a row, as SVG path commands."""
    for y, row in enumerate(cells):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
        for start, end in edges.reshape(-1, 2):
            yield f"M{start} {y}h{end - start}v1h-{end - start}z"
