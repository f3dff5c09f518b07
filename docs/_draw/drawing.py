"""Plotting helpers of the pictures of rules: one style, deterministic SVG files, and the common kinds of plot.

The pictures themselves are in `docs._draw.drawn`, one function per rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jax_attention.masks import Mask

COLOURS = ("#2166ac", "#d6604d", "#4d9221", "#7b3294")
GREY = "#888888"
_STYLE = {
    "svg.hashsalt": "jax_attention",  # otherwise matplotlib writes random ids, and each file differs from the last
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}
_MASK_COLOURS = ListedColormap(["#f2f2f2", COLOURS[0]])


def panels(draw: Callable[..., None], path: Path, columns: int = 2, height: float = 2.9, rows: int = 1) -> None:
    """Save the figure that `draw(*axes)` draws on a grid of axes; the same input gives the same bytes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(3.6 * columns, height * rows), layout="constrained")
        draw(*figure.subplots(rows, columns, squeeze=False).flat)
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"metadata": {"Date": None, "Creator": None}} if path.suffix == ".svg" else {"dpi": 200}
        figure.savefig(path, **options)


def rounded(x: object) -> np.ndarray:
    """Numbers rounded to 4 decimals, so that the last bit of a float does not move a line in the file."""
    return np.round(np.asarray(x, np.float64), 4) + 0.0  # + 0.0 turns -0.0 into 0.0, which prints differently


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Set the title and the axis labels."""
    axes.set(title=title, xlabel=x, ylabel=y)


def curves(axes: Axes, x: object, ys: Mapping[str, object], title: str, xlabel: str, ylabel: str) -> None:
    """Draw one line per entry, with a legend if there are several; later lines are dashed so that equal ones show."""
    styles = ("-", "--", "-.", ":")
    for i, (name, y) in enumerate(ys.items()):
        axes.plot(rounded(x), rounded(y), styles[i % 4], color=COLOURS[i % 4], label=name, linewidth=1.7)
    label(axes, title, xlabel, ylabel)
    if len(ys) > 1:
        axes.legend()


def bars(axes: Axes, rows: Mapping[str, object], names: list[str], title: str, xlabel: str, ylabel: str) -> None:
    """Draw grouped bars: one group per name, one colour per row."""
    width = 0.8 / len(rows)
    for i, (row, heights) in enumerate(rows.items()):
        where = np.arange(len(names)) + (i - (len(rows) - 1) / 2) * width
        axes.bar(where, rounded(heights), width, color=COLOURS[i], label=row)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.18)
    label(axes, title, xlabel, ylabel)
    if len(rows) > 1:
        axes.legend()


def table(axes: Axes, array: object, title: str, xlabel: str, ylabel: str, digits: int | None = 1) -> None:
    """Draw a heat map with a white line between cells and, unless `digits` is None, the number in every cell.

    NaN and infinite cells are left white and crossed out.
    """
    array = rounded(array)
    finite = np.ma.masked_invalid(array)
    top = max(float(np.abs(finite).max()), 1e-9)
    lines = {"edgecolors": "white", "linewidth": 1.0} if digits is not None else {}
    axes.pcolormesh(finite, cmap="RdBu_r", vmin=-top, vmax=top, **lines)
    for (row, column), number in np.ndenumerate(array):
        if not np.isfinite(number):
            axes.text(column + 0.5, row + 0.5, "x", ha="center", va="center", color=GREY)
        elif digits is not None:
            colour = "white" if abs(number) > 0.65 * top else "black"
            text = f"{number:.{digits}f}"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=8)
    _cells(axes, array.shape, every=1 if digits is not None else 8)
    label(axes, title, xlabel, ylabel)


def mask_grid(axes: Axes, mask: Mask, queries: int = 8, keys: int = 8, title: str | None = None) -> None:
    """Draw a mask as a grid: blue where the query of the row may attend to the key of the column."""
    allowed = mask(jnp.arange(queries)[:, None], jnp.arange(keys)[None])
    allowed = np.broadcast_to(np.asarray(allowed), (queries, keys))
    axes.pcolormesh(allowed.astype(int), cmap=_MASK_COLOURS, vmin=0, vmax=1, edgecolors="white", linewidth=1.2)
    axes.set_aspect("equal")
    _cells(axes, allowed.shape)
    label(axes, repr(mask) if title is None else title, "key position (blue: may attend)", "query position")


def plane(axes: Axes, rule: Callable, query: tuple[float, float], title: str, limit: float = 2.0) -> None:
    """Draw the score of every key of a plane for one query, as level lines; the query is the arrow."""
    side = np.linspace(-limit, limit, 31)
    keys = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    scores = rounded(rule(jnp.asarray([query], jnp.float32), jnp.asarray(keys, jnp.float32))).reshape(31, 31)
    top = max(float(np.abs(scores).max()), 1e-3)
    axes.contourf(side, side, scores, levels=np.linspace(-top, top, 16), cmap="RdBu_r", alpha=0.75)
    lines = axes.contour(side, side, scores, levels=6, colors="black", linewidths=0.5)
    axes.clabel(lines, fontsize=7)
    axes.annotate("", query, (0, 0), arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.6})
    axes.set(aspect="equal", xticks=range(-2, 3), yticks=range(-2, 3))
    label(axes, title, "key feature 0", "key feature 1")


def _cells(axes: Axes, shape: tuple[int, int], every: int = 1) -> None:
    """Put row 0 on top and ticks in the middle of cells; hide the frame."""
    rows, columns = shape
    axes.invert_yaxis()
    axes.set_xticks(np.arange(0, columns, every) + 0.5, range(0, columns, every))
    axes.set_yticks(np.arange(0, rows, every) + 0.5, range(0, rows, every))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
