"""Scores that are a product of query and key: dot, scaled dot, cosine, and Luong's bilinear form (general)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.numerics import matmul, per_tile, safe_norm
from jax_attention.core.struct import array_field, struct
from jax_attention.scores.base import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class _Product(Score):
    """Base of the scores in this file: a projection of the rows, then `query @ key^T`."""

    needs_equal_sizes = True
    is_product = True

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return matmul(query, jnp.swapaxes(key, -1, -2))


@struct
class Dot(_Product):
    """`q . k`; see `dot`."""


@struct
class ScaledDot(_Product):
    """`scale * q . k`; see `scaled_dot`."""

    scale: jax.Array | float | None = array_field(default=None)

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        scale = max(query.shape[-1], 1) ** -0.5 if self.scale is None else per_tile(self.scale)
        return query * scale, key


@struct
class Cosine(_Product):
    """`scale * q . k / (|q| |k|)`; see `cosine`."""

    scale: jax.Array | float = array_field()

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return per_tile(self.scale) * _unit(query), _unit(key)


@struct
class General(_Product):
    """`q^T W k`; see `general`."""

    needs_equal_sizes = False
    weight: jax.Array = array_field("Hq", "Hk")

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return query @ self.weight, key


def _unit(x: jax.Array) -> jax.Array:
    """x / |x|, and 0 for 0.

    Dividing by the largest entry first keeps the squares from over- or underflowing. That divisor cancels in the
    result, so `stop_gradient` changes no derivative: it only keeps the gradient of `max` from being computed.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True, initial=0))
    x = x / jnp.where(largest > 0, largest, 1)
    length = safe_norm(x)
    return x / jnp.where(length > 0, length, 1)


def dot() -> Dot:
    """Dot product of query and key, unscaled.

        score(t, s) = q_t . k_s

    Query `[..., T, H]` and key `[..., S, H]` have the same head size H.

    Returns:
        A score.

    Raises:
        ValueError: by `attend`, if query and key differ in head size.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> scores.dot()(jnp.array([[1., 2.]]), jnp.array([[3., 4.], [0., 1.]]))
        Array([[11.,  2.]], dtype=float32)

    Reference:
        Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation", eq. 7.
    """
    return Dot()


def scaled_dot(scale: Float[Array, "*batch"] | float | None = None) -> ScaledDot:
    """Scaled dot product, the Transformer's score and the default of `attend`.

        score(t, s) = scale * q_t . k_s,        scale = 1 / sqrt(H) by default

    Args:
        scale: number or array over the batch dimensions (`[N]`: one per head); None for `1 / sqrt(H)`.

    Returns:
        A score; `scale` is differentiable.

    Raises:
        TypeError: if `scale` is not real. ValueError: by `attend`, if query and key differ in head size.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> scores.scaled_dot()(jnp.ones((1, 4)), jnp.ones((2, 4)))
        Array([[2., 2.]], dtype=float32)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", eq. 1.
    """
    return ScaledDot(None if scale is None else check_array("scale", scale))


def cosine(scale: Float[Array, "*batch"] | float = 1.0) -> Cosine:
    """Cosine similarity of query and key: directions count, lengths do not.

        score(t, s) = scale * q_t . k_s / (|q_t| |k_s|)

    A zero vector has no direction; its scores, and the gradients through them, are 0.

    Args:
        scale: number or array over the batch dimensions, for example `[N]` for one learned scale per head. With 1 the
            scores lie in [-1, 1], so the softmax stays nearly flat; Swin v2 learns scales up to 100.

    Returns:
        A score; `scale` is differentiable.

    Raises:
        TypeError: if `scale` is not a real number or float array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> scores.cosine()(jnp.array([[3., 4.]]), jnp.array([[6., 8.], [-3., -4.], [0., 0.]]))
        Array([[ 1., -1.,  0.]], dtype=float32)

    Reference:
        Graves, Wayne, Danihelka (2014), "Neural Turing machines", eq. 6.
    """
    return Cosine(check_array("scale", scale))


def general(weight: Float[Array, "*batch Hq Hk"]) -> General:
    """Luong's general score: a learned bilinear form of query and key, whose head sizes may differ.

        score(t, s) = q_t^T W k_s

    Args:
        weight: `W`, `[..., Hq, Hk]`; batch dimensions broadcast against those of the scores (`[N, Hq, Hk]`: one per
            head).

    Returns:
        A score; `weight` is differentiable. `jax_attention.nn.General` holds a trained one.

    Raises:
        ValueError: if `weight` has fewer than two axes, or (by `attend`) does not fit query and key.
        TypeError: if `weight` is not a float array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> scores.general(jnp.array([[0., 1.], [1., 0.]]))(jnp.array([[1., 2.]]), jnp.array([[3., 4.]]))
        Array([[10.]], dtype=float32)

    Reference:
        Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation", eq. 7.
    """
    return General(check_array("weight", weight, ("Hq", "Hk")))
