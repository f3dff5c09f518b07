"""Attention rollout: the share of each input word in each output of the last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.viz.checks import check_row_sums, check_weights

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def rollout(weights: Float[Array, "L N T T"]) -> Float[np.ndarray, "T T"]:
    """Follow attention through all layers; half of each layer's output is its input (the residual connection).

        A_l = mean over heads of weights[l]
        R   = (0.5 A_L + 0.5 I) … (0.5 A_2 + 0.5 I) (0.5 A_1 + 0.5 I)

    `R[t, s]` is the share of input word s in output t. Rows of R sum to 1 when those of the weights do; a row that
    attends to nothing keeps only the half of the residual. One half is a convention of the method: it does not measure
    how much a layer adds to its input.

    Args:
        weights: `[L, N, T, T]`: layers from the first to the last, heads, queries, keys. Rows sum to at most 1.

    Returns:
        float64 `[T, T]`, which `heat_map` draws.

    Raises:
        ValueError: if weights have another rank, no entry, T != S, NaN, infinite or negative entries, or rows that sum
            to more than 1.
        TypeError: if weights are traced or not real.

    Example:
        >>> import numpy as np
        >>> from jax_attention import viz
        >>> looks_back = np.array([[1.0, 0.0], [1.0, 0.0]])
        >>> viz.rollout(np.broadcast_to(looks_back, (2, 1, 2, 2)))
        array([[1.  , 0.  ],
               [0.75, 0.25]])

    Reference:
        Abnar, Zuidema (2020), "Quantifying attention flow in transformers", section 4.
    """
    array = check_weights(weights, (4,))
    fail_unless(
        array.shape[-2] == array.shape[-1],
        f"weights: expected self-attention, [L, N, T, T], got {describe_array(array)}. Cross-attention has no product "
        "over layers: its queries are not its keys.",
    )
    check_row_sums(array, "Rollout follows shares.")
    layers = 0.5 * (array.mean(axis=1) + np.eye(array.shape[-1]))
    result = layers[0]
    for layer in layers[1:]:
        result = layer @ result
    return result
