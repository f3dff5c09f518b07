"""Grid of heat maps: all heads of all layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.viz.checks import check_both_labels, check_layers, check_title, check_weights
from jax_attention.viz.fonts import Lettering, lettering
from jax_attention.viz.heat_map import check_colour_map
from jax_attention.viz.matrix import colour_bar, draw_cells, fit_figure, label_columns, label_rows, require_matplotlib

if TYPE_CHECKING:
    from jaxtyping import Array, Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Labels = tuple[str, ...] | None


def head_grid(
    weights: Float[Array, "L N T S"] | Float[Array, "N T S"],
    query_labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
    *,
    layers: Sequence[object] | None = None,
    title: str | None = None,
    colours: str = "Blues",
) -> Figure:
    """Draw a grid of small maps on one scale: a row for each layer, a column for each head.

        colour of cell (t, s) of map (l, n) = weights[l, n, t, s],        from 0 to the largest weight of all

    The heads of one layer, `[N, T, S]`, fill a grid row by row. Labels are written at the left and at the bottom of the
    grid if they fit there; for long sentences draw one head with `heat_map`, or all of them with `html_page`.

    Args:
        weights: `[L, N, T, S]`: layers, heads, queries, keys; or `[N, T, S]`. Finite and not negative.
        query_labels: T words; none if None.
        key_labels: S words; those of the queries if None.
        layers: names or numbers of the L layers; 0 … L-1 if None.
        title: title above the grid.
        colours: name of a matplotlib colour map; a light colour for 0 reads best.

    Returns:
        A `matplotlib.figure.Figure`; its first L·N axes are the maps, row by row.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries, if the number of labels
            or layers does not fit, if layers are named for `[N, T, S]`, or the colour map is unknown.
        TypeError: if weights are traced or not real, or labels are not strings.
        ImportError: without matplotlib.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> figure = viz.head_grid(np.full((2, 4, 3, 3), 1 / 3), ["The", "cat", "sat"], layers=(0, 11))
        >>> [figure.axes[i].get_ylabel() for i in (0, 4)]
        ['layer 0', 'layer 11']

    Reference:
        Vig (2019), "A multiscale visualization of attention in the transformer model", section 2.2.
    """
    array, title = check_weights(weights, (3, 4)), check_title(title)
    fail_unless(
        layers is None or array.ndim == 4,
        f"layers: expected None, as weights [N, T, S] have no layers, got {layers!r}. Add the axis: weights[None].",
    )
    names = check_layers(layers, array.shape[0]) if array.ndim == 4 else None
    queries, keys = check_both_labels(("query_labels", "key_labels"), query_labels, key_labels, array.shape)
    require_matplotlib()
    check_colour_map(colours)
    letters = lettering([*(queries or ()), *(keys or ()), *(names or ())], title)
    return _grid(array, (queries, keys), names, (title, colours), letters)


def _grid(
    array: np.ndarray, labels: tuple[Labels, Labels], layers: Labels, style: tuple[str, str], letters: Lettering
) -> Figure:
    """Draw the maps, and an invisible frame around them that has the title and the colour bar.

    Positions are in inches; the last row of maps is at height 0. `style` is (title, colour map).
    """
    from matplotlib.figure import Figure

    rows, columns = array.shape[:2] if layers else _fold(array.shape[0])
    maps = array.reshape(-1, *array.shape[-2:])
    width, height = _map_size(max(rows, columns), *array.shape[-2:])
    gap, row_gap = 0.1, 0.1 if layers else 0.26  # without layers every row has titles
    figure = Figure(figsize=(1, 1))
    for i, weights in enumerate(maps):
        row, column = divmod(i, columns)
        position = (column * (width + gap), (rows - 1 - row) * (height + row_gap), width, height)
        axes = figure.add_axes(position)
        image = draw_cells(axes, weights, style[1], array.max() or 1.0)
        if row == 0 or not layers:
            axes.set_title(f"head {i if not layers else column}", fontsize=8, pad=4)
        lowest = i + columns >= len(maps)
        _label(axes, (labels[0] if column == 0 else None, labels[1] if lowest else None), (height, width), letters)
        if layers and column == 0:
            axes.set_ylabel(f"layer {letters.text(layers[row])}", fontsize=8, **letters.style)
    frame = figure.add_axes((0, 0, columns * (width + gap) - gap, rows * (height + row_gap) - row_gap))
    frame.set_axis_off()
    frame.set_title(letters.text(style[0]), fontsize=11, pad=24, **letters.style)
    colour_bar(figure, image, frame, "weight")
    return fit_figure(figure)


def _fold(heads: int) -> tuple[int, int]:
    """Rows and columns of a grid for the heads of one layer: at most 6 columns, rows as equal as possible."""
    rows = math.ceil(heads / 6)
    return rows, math.ceil(heads / rows)


def _map_size(largest_count: int, queries: int, keys: int) -> tuple[float, float]:
    """Width and height of a small map; no side is under a quarter of the other."""
    side = min(1.9, max(0.7, 11 / largest_count))
    longer = max(queries, keys)
    return max(side * keys / longer, side / 4), max(side * queries / longer, side / 4)


def _label(axes: Axes, labels: tuple[Labels, Labels], size: tuple[float, float], letters: Lettering) -> None:
    """Write words at the edge of the grid, if there is room for all of them."""
    height, width = size
    axes.set_xticks([])
    axes.set_yticks([])
    queries, keys = labels
    # The smallest labels, of 6 points, need 0.1 inches each.
    if queries and height / len(queries) >= 0.105:
        label_rows(axes, queries, height / len(queries), letters, "")
    if keys and width / len(keys) >= 0.105:
        label_columns(axes, keys, width / len(keys), letters, False, "")
