"""Alignment of a translation: the source words that each target word attended to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.viz.checks import ROW_SLACK, check_labels, check_title, check_weights
from jax_attention.viz.fonts import lettering
from jax_attention.viz.matrix import MatrixStyle, matrix_figure, require_matplotlib

if TYPE_CHECKING:
    from jaxtyping import Array, Float
    from matplotlib.figure import Figure


def alignment_map(
    weights: Float[Array, "T S"],
    source: Sequence[str],
    target: Sequence[str],
    *,
    title: str | None = None,
    values: bool | None = False,
) -> Figure:
    """Draw the alignment of a translation in grey: source words across the top, target words down the side.

        grey of cell (t, s) = weights[t, s],        0 is black, 1 is white

    The scale is fixed, so pictures of different sentences can be compared.

    Args:
        weights: `[T, S]`, each from 0 to 1.
        source: S words of the source (the keys).
        target: T words of the target (the queries).
        title: title above the map.
        values: whether to write the numbers into the cells; if None, where they fit.

    Returns:
        A `matplotlib.figure.Figure`, large enough for its labels; `save` writes it.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries or entries above 1, or the
            number of words is not S or T.
        TypeError: if weights are traced or not real, or words are not strings.
        ImportError: without matplotlib.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> figure = viz.alignment_map(np.eye(2), source=["good", "day"], target=["guten", "Tag"])
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['good', 'day']

    Reference:
        Bahdanau, Cho, Bengio (2015), "Neural machine translation by jointly learning to align and translate", figure 3.
    """
    array, title = check_weights(weights, (2,)), check_title(title)
    top = float(array.max())
    fail_unless(
        top <= 1 + ROW_SLACK,
        f"weights: expected at most 1, which is drawn white, got {top:.6g}. heat_map takes weights of any scale.",
    )
    for name, words in (("source", source), ("target", target)):
        fail_unless(words is not None, f"{name}: expected words, got None. heat_map draws maps without words.")
    source = check_labels("source", source, array.shape[1], "S")
    target = check_labels("target", target, array.shape[0], "T")
    require_matplotlib()
    letters = lettering([*source, *target], title)
    style = MatrixStyle(
        title, "source", "target", "weight", top=1.0, colour_map="gray", show_values=values, x_labels_on_top=True
    )
    return matrix_figure(np.minimum(array, 1.0), target, source, style, letters)
