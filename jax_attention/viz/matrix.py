"""Drawing of one labelled matrix on a figure that is just large enough for its labels; all pictures use it.

It uses matplotlib's objects only (no pyplot, no settings), so it is safe in servers, threads and notebooks. Sizes are
in inches: axes are placed first and the figure is then enlarged around them, so that no label is cut off.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.viz.fonts import Lettering
from jax_attention.viz.labels import text_width
from jax_attention.viz.save import show_in_notebooks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN = 0.12
"""Inches around the contents of a figure."""
FONT_SIZES = 6.0, 10.0
"""Smallest and largest font size of labels, in points."""

BLACK_TEXT_LUMINANCE = 0.179
"""Above this luminance of the background L black text has more contrast than white: (L + 0.05)^2 = 1.05 * 0.05."""


@dataclasses.dataclass(frozen=True)
class MatrixStyle:
    """Texts around a matrix, and its colours from 0 to `top`. With `show_values` None numbers are shown if they fit."""

    title: str
    x_label: str
    y_label: str
    bar_label: str
    top: float
    colour_map: str = "Blues"
    show_values: bool | None = None
    x_labels_on_top: bool = False


def require_matplotlib() -> None:
    """Raise an `ImportError` that names the missing extra, before anything is drawn."""
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
    style: MatrixStyle,
    letters: Lettering,
) -> Figure:
    """Draw one matrix, row 0 on top, with labels on both axes and a colour bar. NaN cells are white, with a dash."""
    from matplotlib.figure import Figure

    cell_width, cell_height = cell_sizes(*array.shape)
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, cell_width * array.shape[1], cell_height * array.shape[0]))
    image = draw_cells(axes, array, style.colour_map, style.top)
    # A number of 5 points, four characters wide, needs a cell of 0.36 by 0.2 inches.
    if style.show_values or (style.show_values is None and cell_width >= 0.36 and cell_height >= 0.2):
        write_values(axes, array, image, cell_width)
    label_columns(axes, columns, cell_width, letters, style.x_labels_on_top, style.x_label)
    label_rows(axes, rows, cell_height, letters, style.y_label)
    axes.set_title(letters.text(style.title), fontsize=11, pad=8, **letters.style)
    colour_bar(figure, image, axes, style.bar_label)
    return fit_figure(figure)


def cell_sizes(rows: int, columns: int) -> tuple[float, float]:
    """Width and height of a cell: square, unless the matrix is so flat that it would look like a line."""
    # A side is at most 0.55 inches. The longer axis gets 8 inches, but at least 0.1 per cell (enough for a label of 6
    # points) up to 100 cells; beyond that it gets 10 inches, and labels are left out.
    most = max(rows, columns)
    side = min(0.55, max(8 / most, min(0.1, 10 / most)))
    return max(side, min(0.55, 1 / columns)), max(side, min(0.55, 1 / rows))


def draw_cells(axes: Axes, array: np.ndarray, colours: str, top: float) -> object:
    """Draw the matrix as an image, with thin lines between cells if there are few enough to count."""
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


def write_values(axes: Axes, array: np.ndarray, image: object, cell_width: float) -> None:
    """Write numbers into the cells, black or white, whichever has more contrast; an exact 0 is written 0."""
    size = min(9.0, max(5.0, cell_width * 72 / 3))
    for (row, column), number in np.ndenumerate(array):
        if np.isnan(number):
            text, colour = "–", "black"  # noqa: RUF001
        else:
            text = "0" if number == 0 else f"{number:.2f}"
            colour = text_colour_on(image.cmap(image.norm(number)))
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def text_colour_on(background: tuple[float, ...]) -> str:
    """Black or white, whichever has more contrast to the background."""
    return "black" if _luminance(background) > BLACK_TEXT_LUMINANCE else "white"


def label_columns(
    axes: Axes, labels: tuple[str, ...] | None, cell: float, letters: Lettering, on_top: bool, name: str
) -> None:
    """Write labels along x: horizontal if they fit, at 45 degrees if few, else vertical; every n-th if too many."""
    count = int(axes.get_xlim()[1] + 0.5)
    texts, size = _label_texts(labels, count, letters), _font_size(cell)
    widest_label = max(text_width(text) for text in texts) * size / 72
    if labels is None:
        rotation, step = 0, _label_step(cell, widest_label + 0.08)
    elif widest_label + 0.06 <= cell:
        rotation, step = 0, 1
    else:
        rotation = 45 if count <= 16 else 90
        step = _label_step(cell, size * 1.15 / 72)
    alignment = {0: "center", 90: "center", 45: "left" if on_top else "right"}[rotation]
    axes.set_xticks(np.arange(0, count, step))
    mode = {"rotation_mode": "anchor"} if rotation == 45 else {}
    axes.set_xticklabels(texts[::step], rotation=rotation, ha=alignment, fontsize=size, **mode, **letters.style)
    if on_top:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
    axes.set_xlabel(_axis_name(name, labels, step), fontsize=9, labelpad=6)


def label_rows(axes: Axes, labels: tuple[str, ...] | None, cell: float, letters: Lettering, name: str) -> None:
    """Write labels along y; only every n-th if they are too many."""
    count = int(axes.get_ylim()[0] + 0.5)
    texts, size = _label_texts(labels, count, letters), _font_size(cell)
    step = _label_step(cell, size * 1.15 / 72)
    axes.set_yticks(np.arange(0, count, step))
    axes.set_yticklabels(texts[::step], fontsize=size, **letters.style)
    axes.set_ylabel(_axis_name(name, labels, step), fontsize=9, labelpad=6)


def colour_bar(figure: Figure, image: object, axes: Axes, name: str) -> None:
    """Draw a narrow colour bar to the right of the axes, as high as they are."""
    from matplotlib.ticker import MaxNLocator

    left, bottom, width, height = axes.get_position().bounds
    bar = figure.colorbar(image, cax=figure.add_axes((left + width + 0.15, bottom, 0.12, height)))
    bar.locator = MaxNLocator(max(1, min(5, int(height / 0.3))))
    bar.update_ticks()
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label(name, fontsize=9)
    bar.outline.set(color="#999999", linewidth=0.6)


def fit_figure(figure: Figure) -> Figure:
    """Enlarge the figure around its contents. Axes were placed in inches, on a figure of one square inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = box.width + 2 * MARGIN, box.height + 2 * MARGIN
    figure.set_size_inches(width, height)
    for axes in figure.axes:
        left, bottom, axes_width, axes_height = axes.get_position().bounds
        left, bottom = left - box.x0 + MARGIN, bottom - box.y0 + MARGIN
        axes.set_position((left / width, bottom / height, axes_width / width, axes_height / height))
    return show_in_notebooks(figure)


def _label_texts(labels: tuple[str, ...] | None, count: int, letters: Lettering) -> list[str]:
    return [str(i) for i in range(count)] if labels is None else [letters.label(label) for label in labels]


def _font_size(cell: float) -> float:
    return min(FONT_SIZES[1], max(FONT_SIZES[0], cell * 72 * 0.75))


def _label_step(cell: float, needed: float) -> int:
    return max(1, math.ceil(needed / cell - 1e-6))  # 1e-6: rounding must not turn an exact fit into one step more


def _axis_name(name: str, labels: tuple[str, ...] | None, step: int) -> str:
    some_left_out = labels is not None and step > 1
    return f"{name} (one label in {step})" if some_left_out else name


def _luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of an sRGB colour, by the definition of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
