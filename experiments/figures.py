"""What the figures of the experiments share: small PNG files, labelled matrices, one matrix with words on both axes."""

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
    """Write the figure as a PNG, and its folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path


def word_matrix(array: Any, words: Sequence[str], title: str, axes: tuple[str, str, str]) -> Figure:
    """One `[T, T]` matrix of any quantity, with the same words on both axes; `axes` names x, y and the colours."""
    array = np.asarray(array)
    look = MatrixStyle(title, *axes, top=array.max() or 1.0)
    return matrix_figure(array, tuple(words), tuple(words), look, lettering(words, title))


class Panel(NamedTuple):
    """A small matrix `[rows, columns]` with its numbers written out."""

    title: str
    rows: Any
    digits: int = 0
    labels: str = ""


def panels(grid: Sequence[Sequence[Panel]], title: str) -> Figure:
    """Rows of small matrices; every cell shows its number, darker where it is larger in its own matrix."""
    widest = max(len(row) for row in grid)
    figure = Figure(figsize=(2.5 * widest, 1.6 * len(grid) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots(len(grid), widest, squeeze=False)
    for places, row in zip(axes, grid, strict=True):
        for place in places[len(row) :]:
            place.set_axis_off()
        for place, panel in zip(places, row, strict=False):
            _draw(place, panel)
    return figure


def _draw(axes: Any, panel: Panel) -> None:
    array = np.asarray(panel.rows, np.float64)
    low, high = array.min(), array.max()
    axes.imshow(array, cmap="Blues", vmin=low, vmax=high + 0.8 * (high - low or 1.0), aspect="auto")
    for (row, column), number in np.ndenumerate(array):
        axes.text(column, row, f"{number:.{panel.digits}f}", ha="center", va="center", fontsize=9)
    axes.set_title(panel.title, fontsize=9)
    axes.set_xticks([])
    names = [f"{panel.labels} {i}" for i in range(1, len(array) + 1)] if panel.labels else []
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
