"""An additive bias: one number for every pair of query and key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.struct import array_field, struct
from jax_attention.mods.base import Mod

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@struct
class Bias(Mod):
    """`scores + array`; see `bias`."""

    array: jax.Array = array_field("T", "S")

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return scores + self.array


def bias(array: Float[Array, "*batch T S"]) -> Bias:
    """Add an array to the scores.

        score'(t, s) = score(t, s) + array[..., t, s]

    An entry of -inf forbids the pair, as a mask would, whatever mods follow: its weight and all gradients through it
    are 0. Only a mask also keeps NaN in a forbidden key out of the product, so use a mask for padding of unknown
    content.

    Args:
        array: `[..., T, S]`; T or S may be 1, batch dimensions broadcast against those of the scores. It is indexed by
            row, not by position.

    Returns:
        A mod; `array` is differentiable.

    Raises:
        ValueError: if `array` has fewer than two axes, or (by `attend`) does not fit the scores.
        TypeError: if it is boolean (that is a mask: use `masks.dense`) or not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attention_weights, mods
        >>> x = jnp.zeros((2, 4))
        >>> attention_weights(x, x, x, mods=(mods.bias(jnp.array([[0., -jnp.inf]])),))
        Array([[1., 0.],
               [1., 0.]], dtype=float32)

    Reference:
        Shaw, Uszkoreit, Vaswani (2018), "Self-attention with relative position representations".
    """
    if jnp.result_type(getattr(array, "dtype", float)) == jnp.bool_:
        raise TypeError("array: expected additive float values, got a bool array. Pass it as mask=masks.dense(array).")
    return Bias(check_array("array", array, ("T", "S")))
