"""Hard attention: all weight on the best key, trained through the softmax."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.ground.values import value
from jax_attention.normalizers.base import Normalizer
from jax_attention.normalizers.softmax import Softmax, SoftmaxStatistics

_SOFT = Softmax()


class HardStatistics(NamedTuple):
    """Softmax statistics (for the gradient), and how many keys the row has seen."""

    soft: SoftmaxStatistics
    ties: jax.Array


@value
class Hard(Normalizer):
    """One-hot of the largest score; see `hard`."""

    def statistics(self, scores: jax.Array, where: jax.Array) -> HardStatistics:
        soft = _SOFT.statistics(scores, where)
        best = where & (jax.lax.stop_gradient(scores) == soft.maximum)
        return HardStatistics(soft, jnp.sum(best, axis=-1, keepdims=True, dtype=scores.dtype))

    def merge(self, a: HardStatistics, b: HardStatistics) -> HardStatistics:
        soft = _SOFT.merge(a.soft, b.soft)
        ties = sum(jnp.where(part.soft.maximum == soft.maximum, part.ties, 0) for part in (a, b))
        return HardStatistics(soft, ties)

    def weights(self, scores: jax.Array, where: jax.Array, statistics: HardStatistics) -> jax.Array:
        soft = _SOFT.weights(scores, where, statistics.soft)
        fixed = jax.lax.stop_gradient(scores)
        best = where & (fixed == statistics.soft.maximum)
        one_hot = jnp.where(best, 1 / jnp.maximum(statistics.ties, 1), 0)
        return one_hot + (soft - jax.lax.stop_gradient(soft))


def hard() -> Hard:
    """Hard attention with a straight-through gradient: the best key takes all; derivatives are the softmax's.

        weight(t, s) = 1 if z_ts is the largest allowed score of row t else 0        (m equal best scores: 1 / m each)
        d weight / d z := d softmax(z) / d z

    Args: none.

    Returns:
        A normalizer. Its derivatives are those of `softmax` by definition, not those of the step function (all 0).

    Raises:
        Nothing.

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
