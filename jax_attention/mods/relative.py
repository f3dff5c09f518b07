"""T5's relative position bias: one learned number per head and bucket of distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from jax_attention.core.checks import check_array, check_int
from jax_attention.core.numerics import take_last
from jax_attention.core.struct import array_field, struct
from jax_attention.mods.base import Mod
from jax_attention.positions.tables import t5_buckets

if TYPE_CHECKING:
    from jaxtyping import Array, Float


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
