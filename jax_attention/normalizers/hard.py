"""Hard attention: all weight on the best key, with the gradient of the softmax."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import row_max
from jax_attention.core.struct import struct
from jax_attention.normalizers.base import Normalizer, broadcast_where, count
from jax_attention.normalizers.softmax import Softmax


@struct
class Hard(Normalizer):
    """One-hot of the largest score; see `hard`."""

    one_pass = False  # scores that are recomputed for a tile may differ by a rounding from the maximum found before

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        where = broadcast_where(scores, where)
        best = where & (jax.lax.stop_gradient(scores) == row_max(jnp.where(where, scores, -jnp.inf)))
        one_hot = best.astype(scores.dtype) / jnp.maximum(count(best, scores.dtype), 1)  # no 0 / 0 in an empty row
        soft = Softmax()(scores, where)
        return one_hot + (soft - jax.lax.stop_gradient(soft))  # straight-through: adds 0, has the softmax's derivative


def hard() -> Hard:
    """Hard attention: the best key takes all; derivatives are those of the softmax (straight-through gradient).

        weight(t, s) = 1 if z_ts is the largest allowed score of row t else 0        (m equal best scores: 1 / m each)
        d weight / d z := d softmax(z) / d z

    Returns:
        A normalizer. Its derivatives are those of `softmax` by definition, not those of the step function (all 0).

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.hard()(jnp.array([[1., 3., 2.]]))
        Array([[0., 1., 0.]], dtype=float32)

    Reference:
        Bengio, Leonard, Courville (2013), "Estimating or propagating gradients through stochastic neurons";
        Xu et al. (2015), "Show, attend and tell", section 4.1.
    """
    return Hard()
