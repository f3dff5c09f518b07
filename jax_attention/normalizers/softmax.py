"""Softmax over the allowed keys, with optional learned sinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.numerics import finite_or_zero, per_tile, row_max
from jax_attention.core.struct import array_field, struct
from jax_attention.normalizers.base import Normalizer

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@struct
class Softmax(Normalizer):
    """`exp(score) / (sum exp(score) + exp(sink))`; see `softmax`."""

    sinks: jax.Array | float | None = array_field(default=None)
    plus_one: bool = False

    def forbid(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Forbidden scores become -inf: their exponential and its derivative are 0, so no second mask is needed."""
        return jnp.where(where, scores, -jnp.inf), where & ~jnp.isneginf(scores)

    def row_max(self, scores: jax.Array, where: jax.Array) -> jax.Array:
        largest, sinks = row_max(scores), self.sinks_or_none()
        # With the sink included exp(sink - row_max) cannot overflow in `denominator`.
        return largest if sinks is None else jnp.maximum(largest, jax.lax.stop_gradient(sinks))

    def rescale(self, old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.exp(old - finite_or_zero(new))  # exp(-inf) = 0 where no earlier tile had a key

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: jax.Array) -> jax.Array:
        return exponentials(scores, row_max)

    def total(self, numerator: jax.Array, where: jax.Array) -> jax.Array:
        return jnp.sum(numerator, axis=-1, keepdims=True)

    def denominator(self, total: jax.Array, row_max: jax.Array) -> jax.Array:
        sinks = self.sinks_or_none()
        if sinks is not None:
            sinks = jnp.asarray(sinks, total.dtype)
            row_max = jnp.maximum(row_max, jax.lax.stop_gradient(sinks))  # -inf if all tiles of the row were skipped
            total = total + exponentials(sinks, row_max)
        return jnp.where(total > 0, total, 1)  # a row without keys: numerators are 0, and 0 / 1 = 0

    def sinks_or_none(self) -> jax.Array | float | None:
        """The scores of the sinks, `[..., 1, 1]` to broadcast over a tile; `plus_one` is a sink of 0. None for none."""
        if self.sinks is not None:
            return per_tile(self.sinks)
        return 0.0 if self.plus_one else None


def logsumexp(total: jax.Array, row_max: jax.Array) -> jax.Array:
    """`log sum exp(score)` from the sum of `exp(score - row_max)`; -inf where there is no key."""
    nonempty = total > 0  # the inner `where` keeps log(0), whose slope is infinite, out of the gradient
    return jnp.where(nonempty, finite_or_zero(row_max) + jnp.log(jnp.where(nonempty, total, 1)), -jnp.inf)


def exponentials(scores: jax.Array, row_max: jax.Array) -> jax.Array:
    """`exp(score - row_max)`; exactly 0 for a score of -inf, also if `row_max` is -inf because all scores are."""
    return jnp.exp(scores - finite_or_zero(row_max))


def softmax(sinks: Float[Array, "*batch"] | float | None = None, *, plus_one: bool = False) -> Softmax:
    """Softmax over the allowed keys; a row without any has weights 0.

        weight(t, s) = exp(z_ts) / (sum_{allowed r} exp(z_tr) + exp(sink))      (no sink: without the last term)

    Args:
        sinks: score of a key without a value, which takes weight but returns nothing: number or array over the batch
            dimensions (`[N]`: one learned sink per head, as in GPT-OSS). With a sink weights may sum to less than 1.
        plus_one: a sink of exactly 0, which adds 1 to the denominator ("softmax1", "quiet attention"; PyTorch's
            `add_zero_attn`).

    Returns:
        A normalizer, the default of `attend`; `sinks` is differentiable.

    Raises:
        ValueError: if both `sinks` and `plus_one` are given.
        TypeError: if `sinks` is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> z = jnp.array([[0., 0., 5.]])
        >>> normalizers.softmax()(z, where=jnp.array([[True, True, False]]))
        Array([[0.5, 0.5, 0. ]], dtype=float32)
        >>> normalizers.softmax(plus_one=True)(jnp.zeros((1, 3)))
        Array([[0.25, 0.25, 0.25]], dtype=float32)

    Reference:
        Vaswani et al. (2017), eq. 1; sinks: Xiao et al. (2024), "Efficient streaming language models with attention
        sinks", and OpenAI (2025), gpt-oss model card.

    Differs from jax.nn.softmax and PyTorch: a fully masked row is 0, not NaN and not the mean.
    """
    if sinks is not None and plus_one:
        raise ValueError("sinks, plus_one: expected at most one of them, got both. plus_one is sinks=0.0.")
    return Softmax(None if sinks is None else check_array("sinks", sinks), bool(plus_one))
