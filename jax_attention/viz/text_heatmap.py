"""Text heat map: the keys as running text, each word on a background that is darker the larger its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.viz.checks import check_labels, check_title, check_weights
from jax_attention.viz.fonts import Lettering, lettering
from jax_attention.viz.heat_map import check_colour_map
from jax_attention.viz.matrix import colour_bar, fit_figure, require_matplotlib, text_colour_on

if TYPE_CHECKING:
    from jaxtyping import Array, Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FONT_SIZE = 10.0
"""Font size of the words, in points."""
LINE_HEIGHT, QUERY_GAP = 0.28, 0.1
"""Height of a line, and gap between the texts of two queries, in inches."""
WORD_PADDING = 0.14
"""Width in inches by which the background of a word exceeds the word."""


def text_heatmap(
    weights: Float[Array, "T S"],
    keys: Sequence[str],
    queries: Sequence[str] | None = None,
    *,
    title: str | None = None,
    colours: str = "Blues",
    wide: float = 7.0,
) -> Figure:
    """Draw the text of the keys once for each query: the larger the weight of a word, the darker its background.

        background of word s for query t = weights[t, s],        from 0 to the largest weight

    Long texts are broken into lines. Use it for a few queries over a text, and `heat_map` for many.

    Args:
        weights: `[T, S]`, finite and not negative; one query is `weights[None]`.
        keys: S words, in their order.
        queries: T words, each written before its text; 0 … T-1 if None.
        title: title above the texts.
        colours: name of a matplotlib colour map; a light colour for 0 reads best.
        wide: largest width of a line, in inches.

    Returns:
        A `matplotlib.figure.Figure`, large enough for its words; `save` writes it.

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
    check_colour_map(colours)
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
    positions, lines = _wrap([width + WORD_PADDING for width in _widths(words, letters)], wide)
    query_height = lines * LINE_HEIGHT + QUERY_GAP
    width, height = max(x + w for x, _, w in positions), query_height * len(queries) - QUERY_GAP
    scale = ScalarMappable(Normalize(0.0, array.max() or 1.0), colormaps[colours])
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, width, height))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    query_style = {"ha": "right", "va": "center", "fontsize": FONT_SIZE, **letters.style}
    for row, query in enumerate(queries):
        top = row * query_height
        axes.text(-WORD_PADDING, top + LINE_HEIGHT / 2, letters.label(query), **query_style)
        for word, weight, (x, line, w) in zip(words, array[row], positions, strict=True):
            _draw_word(axes, word, scale.to_rgba(weight), (x, top + line * LINE_HEIGHT, w), letters)
    axes.set_title(letters.text(title), fontsize=11, pad=8, **letters.style)
    colour_bar(figure, scale, axes, "weight")
    return fit_figure(figure)


def _widths(words: list[str], letters: Lettering) -> list[float]:
    """Width of each drawn word, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [figure.text(0, 0, word, fontsize=FONT_SIZE, **letters.style) for word in words]
    return [text.get_window_extent(renderer).width / figure.dpi for text in texts]


def _wrap(widths: list[float], line_width: float) -> tuple[list[tuple[float, int, float]], int]:
    """Break words into lines: (x, line number, width) of each word, and the number of lines."""
    positions, x, line = [], 0.0, 0
    for width in widths:
        if x > 0 and x + width > line_width:
            x, line = 0.0, line + 1
        positions.append((x, line, width))
        x += width
    return positions, line + 1


def _draw_word(axes: Axes, word: str, background: tuple, box: tuple[float, float, float], letters: Lettering) -> None:
    from matplotlib.patches import Rectangle

    x, y, width = box
    frame = {"facecolor": background, "edgecolor": "#999999", "linewidth": 0.4, "clip_on": False}
    axes.add_patch(Rectangle((x, y), width, LINE_HEIGHT, **frame))
    colour = text_colour_on(background)
    centre = x + width / 2, y + LINE_HEIGHT / 2
    axes.text(*centre, word, ha="center", va="center", fontsize=FONT_SIZE, color=colour, **letters.style)
