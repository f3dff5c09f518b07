"""Probabilities that can be exactly 0: sparsemax and 1.5-entmax, from an exact threshold, and hard attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import finite_or_zero, row_max
from jax_attention.core.struct import struct
from jax_attention.normalizers.base import Normalizer, broadcast_where, count
from jax_attention.normalizers.softmax import Softmax


class _Threshold(Normalizer):
    """Base of both: `weights = max(scale * scores - tau, 0)^power` with the threshold tau for which a row sums to 1.

    1. Newton's method finds the support, the keys with a positive weight, in a few sums over the row. It is a constant
       to derivatives.
    2. Over a known support tau is a smooth closed form, so derivatives of every order are exact wherever they exist.

    alpha-entmax is `max((alpha - 1) z - tau, 0)^(1 / (alpha - 1))`: sparsemax is alpha = 2, 1.5-entmax alpha = 1.5.
    """

    one_pass = False  # the threshold depends on all scores of a row
    scale = 1.0  # alpha - 1
    power = 1  # 1 / (alpha - 1)

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        where = broadcast_where(scores, where)
        return self.weights(scores, where, self._threshold(scores, where))

    def weights(self, scores: jax.Array, where: jax.Array, threshold: jax.Array) -> jax.Array:
        """Weights `[..., t, S]` from the threshold of each row `[..., t, 1]`."""
        return jnp.where(where, jax.nn.relu(scores * self.scale - threshold) ** self.power, 0)

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        """The threshold in closed form; z is 0 outside of the support, which has `size` keys."""
        raise NotImplementedError

    def _threshold(self, scores: jax.Array, where: jax.Array) -> jax.Array:
        z = scores * self.scale
        shift = finite_or_zero(row_max(jnp.where(where, z, -jnp.inf)))  # relative to it tau is in [-1, 0]
        support = self._support(jnp.where(where, jax.lax.stop_gradient(z) - shift, -jnp.inf))
        size = jnp.maximum(jnp.sum(support, axis=-1, keepdims=True, dtype=z.dtype), 1)  # 0 keys in an empty row
        return shift + self.threshold(jnp.where(support, z - shift, 0), support, size)

    def _support(self, z: jax.Array) -> jax.Array:
        """Keys above the root of f; the largest z of a row is 0, forbidden ones are -inf.

            f(tau) = sum_s max(z_s - tau, 0)^power - 1,        Newton: tau <- tau - f(tau) / f'(tau)

        f is convex and decreasing, and f(-1) >= 0 because the largest key alone contributes 1. So the iterates increase
        from -1 to the root and never pass it. The loop ends when no threshold of the array changes any more.
        """

        def newton_step(tau: jax.Array) -> jax.Array:
            excess = jax.nn.relu(z - tau)
            f = jnp.sum(excess**self.power, axis=-1, keepdims=True) - 1
            # -f' is at least 1 up to the root (there f >= 0). The `max` keep roundings next to the root, and rows
            # without keys, from stepping back or dividing by 0.
            slopes = jnp.where(excess > 0, self.power * excess ** (self.power - 1), 0)
            return jax.nn.relu(f) / jnp.maximum(jnp.sum(slopes, axis=-1, keepdims=True), 1)

        def advance(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            tau, step = state
            return tau + step, newton_step(tau + step)

        def changes(state: tuple[jax.Array, jax.Array]) -> jax.Array:
            tau, step = state
            return jnp.any(tau + step > tau)

        start = jnp.full_like(row_max(z), -1)  # of the type of z: sharded, and varying over devices, like z
        tau, _ = jax.lax.while_loop(changes, advance, (start, newton_step(start)))
        return z > tau


@struct
class Sparsemax(_Threshold):
    """`max(z - threshold, 0)`; see `sparsemax`."""

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        """`tau = (sum_{s in support} z_s - 1) / size`: Martins and Astudillo (2016), proposition 1."""
        return (jnp.sum(z, axis=-1, keepdims=True) - 1) / size


@struct
class Entmax15(_Threshold):
    """`max(z / 2 - threshold, 0) ** 2`; see `entmax15`."""

    scale = 0.5
    power = 2

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        """`tau = mean - sqrt((1 - size var) / size)` over the support: Peters et al. (2019), algorithm 2.

        It solves `sum (z - tau)^2 = size var + size (mean - tau)^2 = 1`.
        """
        mean = jnp.sum(z, axis=-1, keepdims=True) / size
        sum_of_squares = jnp.sum(jnp.where(support, (z - mean) ** 2, 0), axis=-1, keepdims=True)
        return mean - jnp.sqrt((1 - sum_of_squares) / size)


def sparsemax() -> Sparsemax:
    """Sparsemax: the Euclidean projection of the scores onto the probability simplex.

        weight(t, s) = max(z_ts - tau_t, 0),        tau_t such that the row sums to 1

    Returns:
        A normalizer. Most weights are exactly 0 when scores differ by more than 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.sparsemax()(jnp.array([[1., 0.5, -1.]]))
        Array([[0.75, 0.25, 0.  ]], dtype=float32)

    Reference:
        Martins, Astudillo (2016), "From softmax to sparsemax"; Michelot (1986), "A finite algorithm for
        finding the projection of a point onto the canonical simplex", whose steps are those of Newton's method here.
    """
    return Sparsemax()


def entmax15() -> Entmax15:
    """1.5-entmax: between softmax and sparsemax; sparse, yet smoother at the edge of the support.

        weight(t, s) = max(z_ts / 2 - tau_t, 0)^2,        tau_t such that the row sums to 1

    Returns:
        A normalizer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.entmax15()(jnp.array([[1., 0., -2.]])).round(2)
        Array([[0.83, 0.17, 0.  ]], dtype=float32)

    Reference:
        Peters, Niculae, Martins (2019), "Sparse sequence-to-sequence models".
    """
    return Entmax15()


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
