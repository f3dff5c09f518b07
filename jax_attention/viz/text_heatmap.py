"""The keys as a line of text, each word on a ground as dark as it is read: what does this query look at?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.viz.checks import check_labels, check_title, check_weights
from jax_attention.viz.fonts import Lettering, lettering
from jax_attention.viz.heat_map import check_colours
from jax_attention.viz.matrix import colour_bar, fit, readable_on, require_matplotlib

if TYPE_CHECKING:
    from jaxtyping import Array, Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 10.0
"""Of the words, in points."""
HIGH, BETWEEN = 0.28, 0.1
"""Inches: of a line, and between the lines of two queries."""
SPARE = 0.14
"""Inches of ground beside each word."""


def text_heatmap(
    weights: Float[Array, "T S"],
    keys: Sequence[str],
    queries: Sequence[str] | None = None,
    *,
    title: str | None = None,
    colours: str = "Blues",
    wide: float = 7.0,
) -> Figure:
    """The text that is read, once for each query: the darker the ground of a word, the more of the weight it has.

        ground of word s in line t = weights[t, s],        from 0 to the largest weight of all lines

    Long texts are broken into lines. It is the picture for a few queries over a text; `heat_map` is for many.

    Args:
        weights: `[T, S]`, finite and not negative; one query is `weights[None]`.
        keys: S words, in their order.
        queries: T words, before each line; 0 … T-1 if None.
        title: above all lines.
        colours: the name of a matplotlib colour map, light for 0.
        wide: inches after which a line of words is broken.

    Returns:
        A `matplotlib.figure.Figure`, of the size its words need; `save` writes it.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries, the number of words is
            not T or S, the colour map is unknown or `wide` is not positive.
        TypeError: if weights are traced or not real, or words are not strings.
        ImportError: without matplotlib.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> figure = viz.text_heatmap(np.array([[0.1, 0.7, 0.2]]), ["The", " cat", " sat"], [" sat"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['␣sat', 'The', '␣cat', '␣sat']

    Reference:
        Lin et al. (2017), "A structured self-attentive sentence embedding", figure 2.
    """
    array, title = check_weights(weights, (2,)), check_title(title)
    fail_unless(keys is not None, "keys: expected words, got None. heat_map draws maps without words.")
    keys = check_labels("keys", keys, array.shape[1], "S")
    queries = check_labels("queries", queries, array.shape[0], "T") or tuple(map(str, range(len(array))))
    fail_unless(
        isinstance(wide, (int, float)) and wide > 0, f"wide: expected inches > 0, got {wide!r}. The default is 7."
    )
    require_matplotlib()
    check_colours(colours)
    return _figure(array, keys, queries, lettering([*keys, *queries], title), title, colours, wide)


def _figure(
    array: np.ndarray,
    keys: tuple[str, ...],
    queries: tuple[str, ...],
    letters: Lettering,
    title: str,
    colours: str,
    wide: float,
) -> Figure:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    words = [letters.label(key) for key in keys]
    places, lines = _broken([size + SPARE for size in _sizes(words, letters)], wide)
    each = lines * HIGH + BETWEEN
    long, high = max(x + size for x, _, size in places), each * len(queries) - BETWEEN
    scale = ScalarMappable(Normalize(0.0, array.max() or 1.0), colormaps[colours])
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, long, high))
    axes.set(xlim=(0, long), ylim=(high, 0))
    axes.set_axis_off()
    for row, query in enumerate(queries):
        top = row * each
        axes.text(-SPARE, top + HIGH / 2, letters.label(query), ha="right", va="center", fontsize=SIZE, **letters.style)
        for word, weight, (x, line, size) in zip(words, array[row], places, strict=True):
            _word(axes, word, scale.to_rgba(weight), (x, top + line * HIGH, size), letters)
    axes.set_title(letters.text(title), fontsize=11, pad=8, **letters.style)
    colour_bar(figure, scale, axes, "weight")
    return fit(figure)


def _sizes(words: list[str], letters: Lettering) -> list[float]:
    """How wide each word is drawn, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [figure.text(0, 0, word, fontsize=SIZE, **letters.style) for word in words]
    return [text.get_window_extent(renderer).width / figure.dpi for text in texts]


def _broken(sizes: list[float], wide: float) -> tuple[list[tuple[float, int, float]], int]:
    """Where each word stands: x, the number of its line, its width; and how many lines there are."""
    places, x, line = [], 0.0, 0
    for size in sizes:
        if x > 0 and x + size > wide:
            x, line = 0.0, line + 1
        places.append((x, line, size))
        x += size
    return places, line + 1


def _word(axes: Axes, word: str, ground: tuple, box: tuple[float, float, float], letters: Lettering) -> None:
    from matplotlib.patches import Rectangle

    x, y, size = box
    frame = {"facecolor": ground, "edgecolor": "#999999", "linewidth": 0.4, "clip_on": False}
    axes.add_patch(Rectangle((x, y), size, HIGH, **frame))
    colour = readable_on(ground)
    centre = x + size / 2, y + HIGH / 2
    axes.text(*centre, word, ha="center", va="center", fontsize=SIZE, color=colour, **letters.style)
