"""Drawing helpers of the experiments: small PNG files, matrices with their numbers, matrices labelled with words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jax_attention.viz.fonts import lettering
from jax_attention.viz.matrix import MatrixStyle, matrix_figure

DPI = 100


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; its folder is created if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def word_matrix(array: Any, words: Sequence[str], title: str, axes: tuple[str, str, str]) -> Figure:
    """Draw one `[T, T]` matrix with the same words on both axes; `axes` labels x, y and the colour bar."""
    array = np.asarray(array)
    style = MatrixStyle(title, *axes, top=array.max() or 1.0)  # a colour scale of length 0 cannot be drawn
    return matrix_figure(array, tuple(words), tuple(words), style, lettering(words, title))


class Panel(NamedTuple):
    """A small matrix `[rows, columns]` with its numbers written out; rows are named `labels 1`, `labels 2`, ..."""

    title: str
    rows: Any
    digits: int = 0
    labels: str = ""


def panels(grid: Sequence[Sequence[Panel]], title: str) -> Figure:
    """Draw rows of small matrices. Each cell shows its number and is darker the larger it is in its matrix."""
    columns = max(len(row) for row in grid)
    figure = Figure(figsize=(2.5 * columns, 1.6 * len(grid) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots(len(grid), columns, squeeze=False)
    for axes_row, row in zip(axes, grid, strict=True):
        for unused in axes_row[len(row) :]:
            unused.set_axis_off()
        for cell, panel in zip(axes_row, row, strict=False):
            _draw_panel(cell, panel)
    return figure


def _draw_panel(axes: Any, panel: Panel) -> None:
    array = np.asarray(panel.rows, np.float64)
    low, high = array.min(), array.max()
    # The scale ends above the largest number, so that black text stays legible on the darkest cell; a constant matrix
    # would have a scale of length 0.
    axes.imshow(array, cmap="Blues", vmin=low, vmax=high + 0.8 * (high - low or 1.0), aspect="auto")
    for (row, column), number in np.ndenumerate(array):
        axes.text(column, row, f"{number:.{panel.digits}f}", ha="center", va="center", fontsize=9)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xticks([])
    names = [f"{panel.labels} {i}" for i in range(1, len(array) + 1)] if panel.labels else []
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
