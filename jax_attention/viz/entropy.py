"""Entropy of the attention of each head, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jax_attention.viz.checks import check_layers, check_row_sums, check_title, check_weights
from jax_attention.viz.fonts import lettering
from jax_attention.viz.matrix import MatrixStyle, matrix_figure, require_matplotlib

if TYPE_CHECKING:
    from jaxtyping import Array, Float
    from matplotlib.figure import Figure


def head_entropy(weights: Float[Array, "L N T S"]) -> Float[np.ndarray, "L N"]:
    """Mean entropy of the rows of each head, in nats.

        H[l, n] = mean_t ( - sum_s w[l, n, t, s] log w[l, n, t, s] ),        over rows t that attend to something

    0 means that every query attends to one key, log S that every query attends to all keys equally. Under a causal mask
    row t cannot exceed log(t + 1). The weight of a sink is not counted, as in `attend_with_stats`.

    Args:
        weights: `[L, N, T, S]`: layers, heads, queries, keys. Rows sum to at most 1.

    Returns:
        float64 `[L, N]`; NaN where every row of a head is empty.

    Raises:
        ValueError: if weights have another rank, no entry, NaN, infinite or negative entries, or rows that sum to more
            than 1.
        TypeError: if weights are traced or not real.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> viz.head_entropy(np.full((1, 1, 3, 4), 0.25)).round(4)  # log 4
        array([[1.3863]])

    Reference:
        Clark et al. (2019), "What does BERT look at?", section 3.2.
    """
    array = check_weights(weights, (4,))
    check_row_sums(array, "The entropy is that of a distribution over keys.")
    surprisal = -np.log(np.where(array > 0, array, 1.0))  # log(0) would give 0 * inf = NaN for a weight of exactly 0
    rows = np.maximum((array * surprisal).sum(axis=-1), 0.0)  # a weight rounded to above 1 would give a negative row
    attending = array.any(axis=-1)
    count = attending.sum(axis=-1)
    return np.where(count > 0, (rows * attending).sum(axis=-1) / np.maximum(count, 1), np.nan)


def entropy_map(
    weights: Float[Array, "L N T S"], *, layers: Sequence[object] | None = None, title: str | None = None
) -> Figure:
    """Draw the mean entropy of every head: a row for each layer, a column for each head.

        colour of cell (l, n) = head_entropy(weights)[l, n],        from 0 to log S (nats)

    Args:
        weights: `[L, N, T, S]`: layers, heads, queries, keys. Rows sum to at most 1.
        layers: names or numbers of the L layers; 0 … L-1 if None.
        title: title above the map.

    Returns:
        A `matplotlib.figure.Figure`. A head whose rows are all empty is left white, with a dash.

    Raises:
        ValueError: as `head_entropy`, and if the number of layers is not L.
        TypeError: if weights are traced or not real.
        ImportError: without matplotlib.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> figure = viz.entropy_map(np.full((2, 3, 4, 4), 0.25), layers=(0, 5))
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['0', '5']
    """
    entropy, title = head_entropy(weights), check_title(title)
    names = check_layers(layers, entropy.shape[0])
    require_matplotlib()
    keys = np.shape(weights)[-1]
    bar = f"nats, at most log {keys}"
    # With one key log S is 0, and a colour scale from 0 to 0 cannot be drawn.
    style = MatrixStyle(title, "head", "layer", bar, top=float(np.log(keys)) or 1.0, colour_map="viridis")
    return matrix_figure(entropy, names, None, style, lettering(names, title))
