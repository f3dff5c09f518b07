"""Heat map of one matrix of attention weights, with words on both axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jax_attention.viz.checks import check_both_labels, check_title, check_weights
from jax_attention.viz.fonts import lettering
from jax_attention.viz.matrix import MatrixStyle, matrix_figure, require_matplotlib

if TYPE_CHECKING:
    from jaxtyping import Array, Float
    from matplotlib.figure import Figure


def heat_map(
    weights: Float[Array, "T S"],
    query_labels: Sequence[str] | None = None,
    key_labels: Sequence[str] | None = None,
    *,
    title: str | None = None,
    values: bool | None = None,
    colours: str = "Blues",
) -> Figure:
    """Draw one matrix of weights: a row for each query, a column for each key.

        colour of cell (t, s) = weights[t, s],        from 0 to the largest weight

    White space in labels is shown (␣ ⏎ ⇥); long labels are shortened; where there are too many, only every n-th is
    written. The colour bar shows the scale, so rules whose rows do not sum to 1 (sigmoid, relu) need no scaling.

    Args:
        weights: `[T, S]`, finite and not negative.
        query_labels: T words for the rows; 0 … T-1 if None.
        key_labels: S words for the columns; those of the queries if None, as in self-attention.
        title: title above the map.
        values: whether to write the numbers into the cells; if None, where they fit (up to about 20 keys).
        colours: name of a matplotlib colour map; a light colour for 0 reads best.

    Returns:
        A `matplotlib.figure.Figure`, large enough for its labels; `save` writes it. No global state is changed.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries, if the number of labels
            is not T or S, or the colour map is unknown.
        TypeError: if weights are traced or not real, or labels are not strings.
        ImportError: without matplotlib.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> figure = viz.heat_map(np.eye(3), ["The", " cat", " sat"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['The', '␣cat', '␣sat']

    Reference:
        Vaswani et al. (2017), "Attention is all you need", appendix: attention visualizations.
    """
    array, title = check_weights(weights, (2,)), check_title(title)
    queries, keys = check_both_labels(("query_labels", "key_labels"), query_labels, key_labels, array.shape)
    require_matplotlib()
    check_colour_map(colours)
    letters = lettering([*(queries or ()), *(keys or ())], title)
    # A colour scale from 0 to 0 cannot be drawn, so weights that are all 0 get the scale to 1.
    top = array.max() or 1.0
    style = MatrixStyle(title, "key", "query", "weight", top, colour_map=colours, show_values=values)
    return matrix_figure(array, queries, keys, style, letters)


def check_colour_map(name: object) -> None:
    """Raise if matplotlib has no colour map of that name."""
    from matplotlib import colormaps

    if name not in list(colormaps):
        raise ValueError(
            f"colours: expected the name of a matplotlib colour map, such as 'Blues', 'Greys' or 'viridis', got "
            f"{name!r}."
        )
