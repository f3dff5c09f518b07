"""Score by distance: the nearer a key, the higher its score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.matmul import matmul
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.scores.base import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@struct
class L2(Score):
    """`-scale * |q - k|^2`; see `l2`."""

    same_size = True
    is_product = True
    scale: jax.Array | float = array_field()

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Append the squared lengths, so that one product gives `2 q.k - |q|^2 - |k|^2`."""
        scale = per_tile(self.scale)
        square = lambda x: jnp.sum(x * x, axis=-1, keepdims=True)  # noqa: E731
        one = lambda x: jnp.ones_like(x[..., :1])  # noqa: E731
        query_part = scale * jnp.concatenate([2 * query, -square(query), -one(query)], axis=-1)
        return query_part, jnp.concatenate([key, one(key), square(key)], axis=-1)

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return matmul(query, jnp.swapaxes(key, -1, -2))


def l2(scale: Float[Array, "*lead"] | float = 1.0) -> L2:
    """Negative squared Euclidean distance: the softmax over it is a Gaussian kernel smoother.

        score(t, s) = -scale * |q_t - k_s|^2

    Computed as `2 q.k - |q|^2 - |k|^2` by one product, so no `[T, S, H]` array exists. The price is cancellation:
    the error is about the rounding of the squared lengths, not of the distance.

    Args:
        scale: number or array of the leading axes (`[N]`: one per head). `1 / (2 sigma^2)` for a Gaussian of width
            sigma (Nadaraya-Watson regression); `1 / sqrt(H)` is a common choice in Lipschitz Transformers.

    Returns:
        A score value; `scale` is differentiable.

    Raises:
        TypeError: if `scale` is not a real number or float array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> scores.l2()(jnp.array([[0., 0.]]), jnp.array([[3., 4.], [0., 1.]]))
        Array([[-25.,  -1.]], dtype=float32)

    Reference:
        Kim, Papamakarios, Mnih (2021), "The Lipschitz constant of self-attention", section 4.
    """
    return L2(check_array("scale", scale))
