"""Scores from distances: the nearer a key, the higher its score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.numerics import matmul, per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.scores.base import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


MEDIAN_STEPS = 4
"""Each leaves one far point among n behind by a factor of n: 6^4 for 6 keys, which the tests put 10^10 away."""


@struct
class L2(Score):
    """`-scale * |q - k|^2`; see `l2`."""

    needs_equal_sizes = True
    is_product = True
    scale: jax.Array | float = array_field()

    def center(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both relative to a centre of the keys: far from the origin, `2 q.k - |q|^2 - |k|^2` loses its last digits.

        The centre is near their geometric median, as a mean would follow a single far key away from all others. It is
        a constant to derivatives, as no score depends on it. Rows of zeros do not count: they may be empty slots of a
        cache, or keys that nothing attends to. Nor do rows with NaN or inf.
        """
        counts = jnp.isfinite(key).all(axis=-1, keepdims=True) & (key != 0).any(axis=-1, keepdims=True)
        # One centre for all keys that share a query, so that the query is not copied for each of them.
        sizes = (1,) * (key.ndim - query.ndim) + query.shape[max(query.ndim - key.ndim, 0) : -2]
        axes = (*(axis for axis, size in enumerate(sizes) if size == 1), -2)
        centre = _geometric_median(jax.lax.stop_gradient(jnp.where(counts, key, 0)), counts, axes)
        of_query = centre.reshape((1,) * (query.ndim - centre.ndim) + centre.shape[max(centre.ndim - query.ndim, 0) :])
        return query - of_query, key - centre

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Append the squared lengths, so that one product gives `2 q.k - |q|^2 - |k|^2`.

        `q' = scale [2 q ; -|q|^2 ; -1]`, `k' = [k ; 1 ; |k|^2]`
        """
        query_features = jnp.concatenate([2 * query, -_squared_length(query), -_ones(query)], axis=-1)
        return per_tile(self.scale) * query_features, jnp.concatenate([key, _ones(key), _squared_length(key)], axis=-1)

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return matmul(query, jnp.swapaxes(key, -1, -2))


def _geometric_median(points: jax.Array, counts: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The point with the smallest sum of distances, nearly: steps of Weiszfeld (1937) from the mean or the origin.

    They begin at the better of the two, and weight each point by its inverse distance. `[..., 1, H]`.
    """
    largest = jnp.finfo(points.dtype).max  # not inf, which jax_debug_infs refuses

    def mean(weights: jax.Array) -> jax.Array:
        total = jnp.sum(weights, axis=axes, keepdims=True)
        centre = jnp.sum(weights * points, axis=axes, keepdims=True) / jnp.where(total > 0, total, 1)
        return jnp.where(jnp.isfinite(centre), centre, 0)

    def distances(centre: jax.Array) -> jax.Array:
        return jnp.where(counts, jnp.minimum(jnp.sqrt(_squared_length(points - centre)), largest), 0)

    def cost(centre: jax.Array) -> jax.Array:
        # Divided first: the sum of some large distances would be infinite.
        return jnp.sum(distances(centre) / largest**0.5, axis=axes, keepdims=True)

    centre = mean(counts.astype(points.dtype))
    centre = jnp.where(cost(centre) < cost(jnp.zeros_like(centre)), centre, 0)
    for _ in range(MEDIAN_STEPS):
        distance = distances(centre)
        nearest = jnp.min(jnp.where(counts, distance, largest), axis=axes, keepdims=True, initial=largest)
        # Relative to the nearest point: 1 / distance may overflow.
        relative = distance / jnp.where(nearest > 0, nearest, 1)
        centre = mean(jnp.where(counts, 1 / jnp.maximum(relative, 1), 0))
    return centre


def _squared_length(x: jax.Array) -> jax.Array:
    return jnp.sum(x * x, axis=-1, keepdims=True)


def _ones(x: jax.Array) -> jax.Array:
    return jnp.ones_like(x[..., :1])


def l2(scale: Float[Array, "*batch"] | float = 1.0) -> L2:
    """Negative squared Euclidean distance: the softmax over it is a Gaussian kernel smoother.

        score(t, s) = -scale * |q_t - k_s|^2

    Computed as `2 q.k - |q|^2 - |k|^2` by one product, so no `[T, S, H]` array exists, with q and k relative to a
    centre of the keys, near their median. The error is about the rounding of the squared distances from it: small
    distances within a cloud of wide extent are less exact than large ones. `attend_step`, which never sees all keys,
    moves nothing.

    Args:
        scale: number or array over the batch dimensions (`[N]`: one per head). `1 / (2 sigma^2)` for a Gaussian of
            width sigma (Nadaraya-Watson regression); `1 / sqrt(H)` is a common choice in Lipschitz Transformers.

    Returns:
        A score; `scale` is differentiable.

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
