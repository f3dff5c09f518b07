"""The frame of all pictures: one labelled matrix on a figure that is just large enough for its labels.

Uses matplotlib's objects only (no pyplot, no settings), so it is safe in servers, threads and notebooks. Sizes are in
inches; axes are placed by hand and the figure is then grown around them, so that no label is cut off.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.viz.fonts import Lettering
from jax_attention.viz.labels import width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN = 0.12
LEGIBLE = 6.0, 10.0
"""Font sizes of labels in points, the smallest and the largest."""

BLACK_ON = 0.179
"""From this luminance on, black has more contrast than white: (L + 0.05)^2 = 1.05 * 0.05."""


@dataclasses.dataclass(frozen=True)
class MatrixStyle:
    """What is written around a matrix, and how numbers become colours; `values` None: where they fit."""

    title: str
    x: str
    y: str
    bar: str
    top: float
    colours: str = "Blues"
    values: bool | None = None
    above: bool = False


def require_matplotlib() -> None:
    """Say which extra is missing, before anything else happens."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"matplotlib: expected to be installed, as it draws the pictures, got {error}. "
            "pip install 'jax_attention[viz]'. html_page needs no matplotlib."
        ) from None


def matrix_figure(
    array: np.ndarray,
    rows: tuple[str, ...] | None,
    columns: tuple[str, ...] | None,
    look: MatrixStyle,
    letters: Lettering,
) -> Figure:
    """One matrix, row 0 on top, with labels on both axes and a colour bar. NaN cells are left white, with a dash."""
    from matplotlib.figure import Figure

    wide, high = cell_sizes(*array.shape)
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, wide * array.shape[1], high * array.shape[0]))
    image = draw_cells(axes, array, look.colours, look.top)
    if look.values or (look.values is None and wide >= 0.36 and high >= 0.2):
        write_values(axes, array, image, wide)
    label_columns(axes, columns, wide, letters, look.above, look.x)
    label_rows(axes, rows, high, letters, look.y)
    axes.set_title(letters.text(look.title), fontsize=11, pad=8, **letters.style)
    colour_bar(figure, image, axes, look.bar)
    return fit(figure)


def cell_sizes(rows: int, columns: int) -> tuple[float, float]:
    """Width and height of a cell: square, unless the matrix is so flat that it would be a line."""
    most = max(rows, columns)
    side = min(0.55, max(8 / most, min(0.1, 10 / most)))
    return max(side, min(0.55, 1 / columns)), max(side, min(0.55, 1 / rows))


def draw_cells(axes: Axes, array: np.ndarray, colours: str, top: float) -> object:
    """The matrix as an image with thin lines between cells while those are large enough to be counted."""
    from matplotlib.colors import Normalize

    rows, columns = array.shape
    image = axes.imshow(
        np.ma.masked_invalid(array), cmap=colours, norm=Normalize(0.0, top), aspect="auto", interpolation="nearest"
    )
    for spine in axes.spines.values():
        spine.set(color="#999999", linewidth=0.6)
    if max(rows, columns) <= 40:
        axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, colors="#808080", linewidths=0.4, alpha=0.4)
        axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, colors="#808080", linewidths=0.4, alpha=0.4)
    axes.tick_params(length=0, pad=4)
    return image


def write_values(axes: Axes, array: np.ndarray, image: object, wide: float) -> None:
    """Numbers in the cells, black or white, whichever stands out; an exact 0 is written 0."""
    size = min(9.0, max(5.0, wide * 72 / 3))
    for (row, column), number in np.ndenumerate(array):
        if np.isnan(number):
            text, colour = "–", "black"  # noqa: RUF001
        else:
            text = "0" if number == 0 else f"{number:.2f}"
            colour = readable_on(image.cmap(image.norm(number)))
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def readable_on(ground: tuple[float, ...]) -> str:
    """Black or white, whichever stands out."""
    return "black" if _luminance(ground) > BLACK_ON else "white"


def label_columns(
    axes: Axes, labels: tuple[str, ...] | None, cell: float, letters: Lettering, above: bool, name: str
) -> None:
    """Labels along x: level where they fit, slanted when few, upright otherwise, and only every n-th when crowded."""
    count = int(axes.get_xlim()[1] + 0.5)
    shown, size = _shown(labels, count, letters), _font_size(cell)
    widest = max(width(text) for text in shown) * size / 72
    if labels is None:
        turn, step = 0, _step(cell, widest + 0.08)
    elif widest + 0.06 <= cell:
        turn, step = 0, 1
    else:
        turn = 45 if count <= 16 else 90
        step = _step(cell, size * 1.15 / 72)
    lean = {0: "center", 90: "center", 45: "left" if above else "right"}[turn]
    axes.set_xticks(np.arange(0, count, step))
    mode = {"rotation_mode": "anchor"} if turn == 45 else {}
    axes.set_xticklabels(shown[::step], rotation=turn, ha=lean, fontsize=size, **mode, **letters.style)
    if above:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
    axes.set_xlabel(_axis_name(name, labels, step), fontsize=9, labelpad=6)


def label_rows(axes: Axes, labels: tuple[str, ...] | None, cell: float, letters: Lettering, name: str) -> None:
    """Labels along y, only every n-th when crowded."""
    count = int(axes.get_ylim()[0] + 0.5)
    shown, size = _shown(labels, count, letters), _font_size(cell)
    step = _step(cell, size * 1.15 / 72)
    axes.set_yticks(np.arange(0, count, step))
    axes.set_yticklabels(shown[::step], fontsize=size, **letters.style)
    axes.set_ylabel(_axis_name(name, labels, step), fontsize=9, labelpad=6)


def colour_bar(figure: Figure, image: object, beside: Axes, name: str) -> None:
    """A narrow bar at the right of the axes, as high as they are."""
    from matplotlib.ticker import MaxNLocator

    left, bottom, wide, high = beside.get_position().bounds
    bar = figure.colorbar(image, cax=figure.add_axes((left + wide + 0.15, bottom, 0.12, high)))
    bar.locator = MaxNLocator(max(1, min(5, int(high / 0.3))))
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label(name, fontsize=9)
    bar.outline.set(color="#999999", linewidth=0.6)


def fit(figure: Figure) -> Figure:
    """Grow the figure around what was drawn. Axes were placed in inches, on a figure of one square inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    wide, high = box.width + 2 * MARGIN, box.height + 2 * MARGIN
    figure.set_size_inches(wide, high)
    for axes in figure.axes:
        left, bottom, inner_wide, inner_high = axes.get_position().bounds
        left, bottom = left - box.x0 + MARGIN, bottom - box.y0 + MARGIN
        axes.set_position((left / wide, bottom / high, inner_wide / wide, inner_high / high))
    return figure


def _shown(labels: tuple[str, ...] | None, count: int, letters: Lettering) -> list[str]:
    return [str(i) for i in range(count)] if labels is None else [letters.label(label) for label in labels]


def _font_size(cell: float) -> float:
    return min(LEGIBLE[1], max(LEGIBLE[0], cell * 72 * 0.75))


def _step(cell: float, needed: float) -> int:
    return max(1, math.ceil(needed / cell - 1e-6))


def _axis_name(name: str, labels: tuple[str, ...] | None, step: int) -> str:
    crowded = labels is not None and step > 1
    return f"{name} (one label in {step})" if crowded else name


def _luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of an sRGB colour, as in the contrast rule of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
