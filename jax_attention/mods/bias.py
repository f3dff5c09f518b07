"""Additive biases: a number for every pair (bias), a slope per head (ALiBi), a table of distances (T5, relative)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_array, check_int
from jax_attention.core.numerics import per_tile, take_last
from jax_attention.core.struct import array_field, struct
from jax_attention.mods.base import Mod
from jax_attention.positions.tables import t5_buckets

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
    if getattr(array, "dtype", None) == np.bool_:
        raise TypeError("array: expected additive float values, got a bool array. Pass it as mask=masks.dense(array).")
    return Bias(check_array("array", array, ("T", "S")))


@struct
class Alibi(Mod):
    """`scores - slopes * |q_pos - k_pos|`; see `alibi`."""

    may_forbid_pairs = False
    slopes: jax.Array | float = array_field()

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        distance = jnp.abs(q_pos - k_pos).astype(scores.dtype)
        return scores - jnp.asarray(per_tile(self.slopes), scores.dtype) * distance


def alibi(slopes: Float[Array, "*batch"] | float) -> Alibi:
    """Attention with linear biases: distant keys score lower.

        score'(t, s) = score(t, s) - slope * |q_pos - k_pos|

    Args:
        slopes: number, or array over the batch dimensions, usually `[N]` from `positions.alibi_slopes(N)`.

    Returns:
        A mod; `slopes` is differentiable.

    Raises:
        TypeError: if `slopes` is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import mods
        >>> mods.alibi(0.5)(jnp.zeros((1, 3)), jnp.array([[2]]), jnp.array([[0, 1, 2]]))
        Array([[-1. , -0.5,  0. ]], dtype=float32)

    Reference:
        Press, Smith, Lewis (2022), "Train short, test long: attention with linear biases enables input length
        extrapolation".

    Differs from the paper: the distance is absolute, so the mod also serves bidirectional attention; under a causal
    mask both are the same. Hugging Face BLOOM adds `slope * k_pos` instead, which differs by a constant per row.
    """
    return Alibi(check_array("slopes", slopes))


@struct
class Relative(Mod):
    """`scores + table[bucket(k_pos - q_pos)]`; see `relative`."""

    table: jax.Array = array_field("buckets")
    bidirectional: bool = True
    max_distance: int = 128

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        buckets = t5_buckets(
            k_pos - q_pos,
            bidirectional=self.bidirectional,
            num_buckets=self.table.shape[-1],
            max_distance=self.max_distance,
        )
        return scores + take_last(self.table, buckets)


def relative(table: Float[Array, "*batch buckets"], *, bidirectional: bool = True, max_distance: int = 128) -> Relative:
    """T5's relative position bias.

        score'(t, s) = score(t, s) + table[..., bucket(k_pos - q_pos)]

    Args:
        table: `[..., buckets]`, usually `[N, 32]`: batch dimensions broadcast against those of the scores.
        bidirectional: True for encoders (half of the buckets look ahead), False for causal decoders.
        max_distance: all distances from this one on share the last bucket.

    Returns:
        A mod; `table` is differentiable.

    Raises:
        ValueError: if `table` has no axis, or too few buckets for the direction.
        TypeError: if `max_distance` is not a Python int.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import mods
        >>> rule = mods.relative(jnp.arange(4.), bidirectional=False, max_distance=8)
        >>> rule(jnp.zeros((1, 4)), jnp.array([[3]]), jnp.arange(4)[None])
        Array([[2., 2., 1., 0.]], dtype=float32)

    Reference:
        Raffel et al. (2020), "Exploring the limits of transfer learning with a unified text-to-text Transformer", 2.1.

    Differs from Hugging Face: the table there is `[buckets, N]`; pass its transpose.
    """
    table = check_array("table", table, ("buckets",))
    max_distance = check_int("max_distance", max_distance, 1, "T5 uses 128.")
    # Called for its checks: too few buckets or too small a distance fail here, not in the middle of a call.
    t5_buckets(0, bidirectional=bidirectional, num_buckets=table.shape[-1], max_distance=max_distance)
    return Relative(table, bool(bidirectional), max_distance)
