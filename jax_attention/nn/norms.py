"""Layer norm and RMS norm of Flax with one derivative rule, which keeps less and runs faster than step by step."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.core.numerics import compute_dtype

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardized(x: jax.Array, epsilon: float, centred: bool) -> jax.Array:
    """`c / sqrt(mean(c^2) + epsilon)` over the last axis, where c is x, or x minus its mean."""
    return _standardized(x, epsilon, centred)[0]


@standardized.defjvp
def _standardized_jvp(epsilon: float, centred: bool, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """`dy = r (dc - y mean(y dc))` needs the result and one number r for each row."""
    y, r = _standardized(primals[0], epsilon, centred)
    change = _centre(tangents[0], centred)
    return y, r * (change - y * jnp.mean(y * change, axis=-1, keepdims=True))


def _standardized(x: jax.Array, epsilon: float, centred: bool) -> tuple[jax.Array, jax.Array]:
    c = _centre(x, centred)
    r = jax.lax.rsqrt(jnp.mean(jnp.square(c), axis=-1, keepdims=True) + epsilon)
    return c * r, r


def _centre(x: jax.Array, centred: bool) -> jax.Array:
    return x - jnp.mean(x, axis=-1, keepdims=True) if centred else x


def _apply(norm: nnx.LayerNorm | nnx.RMSNorm, x: jax.Array, centred: bool) -> jax.Array:
    """Statistics in at least float32, the result in the layer's dtype; rows are flattened as in `Linear`."""
    bias = getattr(norm, "bias", None)
    held = (x.reshape(-1, x.shape[-1]), norm.scale[...], None if bias is None else bias[...])
    rows, scale, bias = norm.promote_dtype(held, dtype=norm.dtype)
    wide = compute_dtype(rows.dtype)
    y = standardized(rows.astype(wide), norm.epsilon, centred) * scale.astype(wide)[None]
    y = y if bias is None else y + bias.astype(wide)[None]
    return y.astype(rows.dtype).reshape(x.shape)


class LayerNorm(nnx.LayerNorm):
    """`flax.nnx.LayerNorm` over the last axis, its variance in two passes."""

    def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
        """`[..., D] -> [..., D]`."""
        return _apply(self, x, centred=True)


class RMSNorm(nnx.RMSNorm):
    """`flax.nnx.RMSNorm` over the last axis."""

    def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead D"]:
        """`[..., D] -> [..., D]`."""
        return _apply(self, x, centred=False)
