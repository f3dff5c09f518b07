"""Sparsemax and 1.5-entmax: probabilities that can be exactly 0, found by an exact threshold."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import pvary_like
from jax_attention.core.struct import struct
from jax_attention.normalizers.base import Normalizer, everywhere, finite_or_zero, row_max


class _Threshold(Normalizer):
    """Weights are a power of `(z - threshold)+` that sums to 1.

    The support (which keys are positive) is found by Newton's method, a few sums over the row, as a constant to
    derivatives; the threshold is then a smooth closed form over the support, so derivatives of every order are exact
    wherever they exist.
    """

    one_pass = False
    scale = 1.0
    power = 1

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        where = everywhere(scores, where)
        return self.weights(scores, where, self._threshold(scores, where))

    def weights(self, scores: jax.Array, where: jax.Array, threshold: jax.Array) -> jax.Array:
        """Weights, given the threshold of each row."""
        return jnp.where(where, jax.nn.relu(scores * self.scale - threshold) ** self.power, 0)

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        """The threshold in closed form; `z` is 0 outside of the support, which has `size` keys."""
        raise NotImplementedError

    def _threshold(self, scores: jax.Array, where: jax.Array) -> jax.Array:
        z = scores * self.scale
        shift = finite_or_zero(row_max(jnp.where(where, z, -jnp.inf)))
        support = self._support(jnp.where(where, jax.lax.stop_gradient(z) - shift, -jnp.inf))
        size = jnp.maximum(jnp.sum(support, axis=-1, keepdims=True, dtype=z.dtype), 1)
        return shift + self.threshold(jnp.where(support, z - shift, 0), support, size)

    def _support(self, z: jax.Array) -> jax.Array:
        """The keys above the root of `f(t) = sum (z - t)+ ** power - 1`; the largest z is 0, forbidden ones are -inf.

        f falls and is convex, and f(-1) >= 0, so Newton's steps from -1 go up to the root and never beyond it.
        """

        def rest(threshold: jax.Array) -> jax.Array:
            above = jax.nn.relu(z - threshold)
            slopes = jnp.where(above > 0, self.power * above ** (self.power - 1), 0)
            excess = jnp.sum(above**self.power, axis=-1, keepdims=True) - 1
            return jax.nn.relu(excess) / jnp.maximum(
                jnp.sum(slopes, axis=-1, keepdims=True), 1
            )  # the largest key alone gives 1 at -1

        def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            old, step = state
            return old + step, rest(old + step)

        start = pvary_like(jnp.full((*z.shape[:-1], 1), -1, z.dtype), z)
        moves = lambda state: jnp.any(state[0] + state[1] > state[0])  # noqa: E731
        threshold, _ = jax.lax.while_loop(moves, step, (start, rest(start)))
        return z > threshold


@struct
class Sparsemax(_Threshold):
    """`max(z - threshold, 0)`; see `sparsemax`."""

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        return (jnp.sum(z, axis=-1, keepdims=True) - 1) / size


@struct
class Entmax15(_Threshold):
    """`max(z / 2 - threshold, 0) ** 2`; see `entmax15`."""

    scale = 0.5
    power = 2

    def threshold(self, z: jax.Array, support: jax.Array, size: jax.Array) -> jax.Array:
        mean = jnp.sum(z, axis=-1, keepdims=True) / size
        spread = jnp.sum(jnp.where(support, (z - mean) ** 2, 0), axis=-1, keepdims=True)
        return mean - jnp.sqrt((1 - spread) / size)


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
        Martins, Astudillo (2016), "From softmax to sparsemax"; Michelot (1986), "A finite algorithm for
        finding the projection of a point onto the canonical simplex", whose steps ours are.
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
        Peters, Niculae, Martins (2019), "Sparse sequence-to-sequence models".
    """
    return Entmax15()
