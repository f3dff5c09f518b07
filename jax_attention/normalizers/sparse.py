"""Sparsemax and 1.5-entmax: probabilities that can be exactly 0, found by an exact threshold over sorted scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.ground.values import value
from jax_attention.normalizers.base import Normalizer, everywhere, finite_or_zero, row_max


class _Threshold(Normalizer):
    """Weights are a power of `(z - threshold)+`.

    The support (which keys are positive) is found on sorted scores as a constant to derivatives; the threshold is then
    a smooth closed form over the support, so derivatives of every order are exact wherever they exist.
    """

    one_pass = False
    scale = 1.0

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        where = everywhere(scores, where)
        return self.weights(scores, where, self._threshold(scores, where))

    def weights(self, scores: jax.Array, where: jax.Array, threshold: jax.Array) -> jax.Array:
        """Weights, given the threshold of each row."""
        raise NotImplementedError

    def _threshold(self, scores: jax.Array, where: jax.Array) -> jax.Array:
        z, support = self._support(scores, where)
        size = jnp.maximum(jnp.sum(support, axis=-1, keepdims=True, dtype=z.dtype), 1)
        shift = finite_or_zero(row_max(z, where))
        return shift + self.threshold(jnp.where(support, z - shift, 0), support, size)

    def _support(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = scores * self.scale
        fixed = jax.lax.stop_gradient(z)
        top = row_max(fixed, where)
        shifted = jnp.where(where, fixed - finite_or_zero(top), -jnp.inf)
        descending = -jnp.sort(-shifted, axis=-1)
        allowed = ~jnp.isneginf(descending)
        kept = allowed & self.in_support(jnp.where(allowed, descending, 0), allowed)
        number = jnp.sum(kept, axis=-1, keepdims=True)
        smallest = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True, initial=jnp.inf)
        return z, where & (shifted >= smallest) & (number > 0)

    def in_support(self, descending: jax.Array, allowed: jax.Array) -> jax.Array:
        """Whether the k-th largest score still gets weight."""
        raise NotImplementedError

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        """The threshold in closed form; `z` is 0 outside of the support."""
        raise NotImplementedError


@value
class Sparsemax(_Threshold):
    """`max(z - threshold, 0)`; see `sparsemax`."""

    def in_support(self, descending: jax.Array, allowed: jax.Array) -> jax.Array:
        rank = jnp.cumsum(allowed, axis=-1, dtype=descending.dtype)
        return 1 + rank * descending > jnp.cumsum(descending, axis=-1)

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        return (jnp.sum(z, axis=-1, keepdims=True) - 1) / size

    def weights(self, scores: jax.Array, where: jax.Array, threshold: jax.Array) -> jax.Array:
        return jnp.where(where, jax.nn.relu(scores - threshold), 0)


@value
class Entmax15(_Threshold):
    """`max(z / 2 - threshold, 0) ** 2`; see `entmax15`."""

    scale = 0.5

    def in_support(self, descending: jax.Array, allowed: jax.Array) -> jax.Array:
        rank = jnp.maximum(jnp.cumsum(allowed, axis=-1, dtype=descending.dtype), 1)
        mean = jnp.cumsum(descending, axis=-1) / rank
        spread = jnp.cumsum(descending**2, axis=-1) - rank * mean**2
        threshold = mean - jnp.sqrt(jax.nn.relu((1 - spread) / rank))
        return threshold <= descending

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        mean = jnp.sum(z, axis=-1, keepdims=True) / size
        spread = jnp.sum(jnp.where(support, (z - mean) ** 2, 0), axis=-1, keepdims=True)
        return mean - jnp.sqrt((1 - spread) / size)

    def weights(self, scores: jax.Array, where: jax.Array, threshold: jax.Array) -> jax.Array:
        return jnp.where(where, jax.nn.relu(scores * self.scale - threshold) ** 2, 0)


def sparsemax() -> Sparsemax:
    """Sparsemax: the Euclidean projection of the scores onto the probability simplex.

        weight(t, s) = max(z_ts - tau_t, 0),        tau_t such that the row sums to 1

    Args: none.

    Returns:
        A normalizer. Most weights are exactly 0 when scores differ by more than 1.

    Raises:
        Nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.sparsemax()(jnp.array([[1., 0.5, -1.]]))
        Array([[0.75, 0.25, 0.  ]], dtype=float32)

    Reference:
        Martins, Astudillo (2016), "From softmax to sparsemax", algorithm 1.
    """
    return Sparsemax()


def entmax15() -> Entmax15:
    """1.5-entmax: between softmax and sparsemax; sparse, yet smoother at the edge of the support.

        weight(t, s) = max(z_ts / 2 - tau_t, 0)^2,        tau_t such that the row sums to 1

    Args: none.

    Returns:
        A normalizer.

    Raises:
        Nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.entmax15()(jnp.array([[1., 0., -2.]])).round(2)
        Array([[0.83, 0.17, 0.  ]], dtype=float32)

    Reference:
        Peters, Niculae, Martins (2019), "Sparse sequence-to-sequence models", algorithm 2.
    """
    return Entmax15()
