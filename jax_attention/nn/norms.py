"""Layer norm and RMS norm with a custom derivative, which keeps less for the backward pass and runs faster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.core.explicit_axes import flatten_rows
from jax_attention.core.numerics import compute_dtype
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardized(x: jax.Array, epsilon: float, centred: bool) -> jax.Array:
    """`c / sqrt(mean(c^2) + epsilon)` over the last axis, where c is x, or x minus its mean."""
    return _standardized(x, epsilon, centred)[0]


@standardized.defjvp
def _standardized_jvp(epsilon: float, centred: bool, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Derivative `dy = r (dc - y mean(y dc))`, from the result y and one number r for each row.

    JAX's derivative of the single steps keeps several arrays of the size of x for the backward pass.
    """
    y, r = _standardized(primals[0], epsilon, centred)
    dc = _centre(tangents[0], centred)
    return y, r * (dc - y * jnp.mean(y * dc, axis=-1, keepdims=True))


def _standardized(x: jax.Array, epsilon: float, centred: bool) -> tuple[jax.Array, jax.Array]:
    c = _centre(x, centred)
    r = jax.lax.rsqrt(jnp.mean(jnp.square(c), axis=-1, keepdims=True) + epsilon)
    return c * r, r


def _centre(x: jax.Array, centred: bool) -> jax.Array:
    return x - jnp.mean(x, axis=-1, keepdims=True) if centred else x


def _apply(norm: nnx.LayerNorm | nnx.RMSNorm, x: jax.Array, centred: bool) -> jax.Array:
    """Apply a norm to flattened rows, with statistics in at least float32 and the result in the layer's dtype.

    Narrow statistics would overflow (float16) or lose the mean of rows far from 0 (bfloat16).
    """
    bias = norm.bias[...] if isinstance(norm, nnx.LayerNorm) and norm.bias is not None else None
    arrays = (flatten_rows(x), norm.scale[...], bias)
    rows, scale, bias = norm.promote_dtype(arrays, dtype=norm.dtype)
    wide = compute_dtype(rows.dtype)
    one_row = (1,) * (rows.ndim - 1) + scale.shape
    y = standardized(rows.astype(wide), norm.epsilon, centred) * scale.astype(wide).reshape(one_row)
    y = y if bias is None else y + bias.astype(wide).reshape(one_row)
    return y.astype(rows.dtype).reshape(x.shape)


class LayerNorm(ShortRepr, nnx.LayerNorm):
    """`flax.nnx.LayerNorm` over the last axis, with the variance computed in a second pass from centred rows.

    `mean(x^2) - mean(x)^2` in one pass, which Flax defaults to, loses the digits of rows whose mean is large.
    """

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """`[..., D] -> [..., D]`."""
        return _apply(self, x, centred=True)


class RMSNorm(ShortRepr, nnx.RMSNorm):
    """`flax.nnx.RMSNorm` over the last axis."""

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """`[..., D] -> [..., D]`."""
        return _apply(self, x, centred=False)
