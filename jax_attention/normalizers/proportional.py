"""Weights in proportion to the scores: the normalizer of linear attention."""

from __future__ import annotations

import math
import numbers

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.struct import struct
from jax_attention.normalizers.base import Normalizer
from jax_attention.normalizers.softmax import Softmax


@struct
class Proportional(Normalizer):
    """`score / (sum score + eps)`; see `proportional`."""

    eps: float = 0.0

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: None) -> jax.Array:
        return jnp.where(where, scores, 0)

    def denominator(self, total: jax.Array, row_max: None) -> jax.Array:
        """The sum, or inf where it is 0: x / inf = 0 for weights and derivatives, where x / 0 would be inf or NaN."""
        total = total + self.eps
        return jnp.where(total != 0, total, jnp.inf)

    def of_logarithm(self) -> Softmax:
        """`z / (sum z + eps)` is the softmax of `log z` with a sink of `log eps`."""
        return Softmax(math.log(self.eps) if self.eps else None)


def proportional(*, eps: float = 0.0) -> Proportional:
    """Scores divided by their sum: no exponential, so the scores should not be negative.

        weight(t, s) = z_ts / (sum_{allowed r} z_tr + eps),        0 where the denominator is 0

    With `scores.features` this is linear attention, and takes time linear in T and S
    (`implementation="linear_attention"`). The softmax is the same normalizer over `exp(score)`.

    Args:
        eps: added to the sum, a Python number that is not negative. The published code of the paper uses 1e-6.

    Returns:
        A normalizer.

    Raises:
        TypeError: if `eps` is not a Python number (it is static under jit).
        ValueError: if it is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.proportional()(jnp.array([[3., 1., 0., 4.]]))
        Array([[0.375, 0.125, 0.   , 0.5  ]], dtype=float32)

    Reference:
        Katharopoulos et al. (2020), "Transformers are RNNs: fast autoregressive transformers with linear attention",
        eq. 3.

    Differs from the paper: a row whose scores sum to 0 has weights 0, with and without `eps`.
    """
    fail_unless(
        isinstance(eps, numbers.Real) and not isinstance(eps, bool) and not hasattr(eps, "shape"),
        f"eps: expected a Python number (it is static under jit), got {describe_array(eps)}. Convert it: float(eps).",
        TypeError,
    )
    fail_unless(
        0 <= eps < math.inf,
        f"eps: expected a finite number that is not negative, got {eps}. A small one, 1e-6, keeps sums away from 0.",
    )
    return Proportional(float(eps))
