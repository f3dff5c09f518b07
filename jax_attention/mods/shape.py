"""Mods that rescale scores: Gemma's soft cap and a temperature."""

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
class SoftCap(Mod):
    """`cap * tanh(scores / cap)`; see `soft_cap`."""

    may_forbid_pairs = False
    cap: jax.Array | float = array_field()

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        cap = per_tile(self.cap)
        return cap * jnp.tanh(scores / cap)


@struct
class Temperature(Mod):
    """`scores / temperature`; see `temperature`."""

    may_forbid_pairs = False
    temperature: jax.Array | float = array_field()

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return scores / per_tile(self.temperature)


def _positive(name: str, x: Float[Array, "*batch"] | float) -> Float[Array, "*batch"] | float:
    """Return a number, checked to be positive, or an array, which is not looked into: it may be traced."""
    x = check_array(name, x)
    if isinstance(x, float) and not x > 0:
        raise ValueError(f"{name}: expected a positive number, got {x}. Leave the mod out to switch it off.")
    return x


def soft_cap(cap: Float[Array, "*batch"] | float) -> SoftCap:
    """Soft cap: scores saturate smoothly at plus and minus `cap`.

        score' = cap * tanh(score / cap)

    Args:
        cap: positive number or array over the batch dimensions (`[N]`: one per head). Gemma 2 uses 50.

    Returns:
        A mod; `cap` is differentiable.

    Raises:
        ValueError: if `cap` is a number and not positive (arrays are not looked into: they may be traced).
        TypeError: if `cap` is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import mods
        >>> mods.soft_cap(2.)(jnp.array([[0., 1., 1000.]]), jnp.array([[0]]), jnp.arange(3)[None]).round(4)
        Array([[0.    , 0.9242, 2.    ]], dtype=float32)

    Reference:
        Gemma Team (2024), "Gemma 2: improving open language models at a practical size", section 2.
    """
    return SoftCap(_positive("cap", cap))


def temperature(temperature: Float[Array, "*batch"] | float) -> Temperature:
    """Divide the scores: above 1 the weights become flatter, below 1 sharper.

        score' = score / temperature

    Args:
        temperature: positive number or array over the batch dimensions (`[N]`: one per head).

    Returns:
        A mod; `temperature` is differentiable.

    Raises:
        ValueError: if it is a number and not positive (arrays are not looked into: they may be traced).
        TypeError: if it is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import mods
        >>> mods.temperature(2.)(jnp.array([[4., 8.]]), jnp.array([[0]]), jnp.arange(2)[None])
        Array([[2., 4.]], dtype=float32)

    Reference:
        Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network", eq. 1.
    """
    return Temperature(_positive("temperature", temperature))
