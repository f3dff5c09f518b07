"""ALiBi: a penalty that grows linearly with distance, one slope per head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.mods.base import Mod

if TYPE_CHECKING:
    from jaxtyping import Array, Float


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
