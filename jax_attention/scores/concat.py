"""Concat – linear, applied to each pair: a score that cannot align, kept because tutorials use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.scores.base import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@struct
class Concat(Score):
    """`q . wq + k . wk + bias`; see `concat`."""

    query_weight: jax.Array = array_field("Hq")
    key_weight: jax.Array = array_field("Hk")
    bias: jax.Array | float = array_field(default=0.0)

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        from_query = query @ self.query_weight[..., :, None] + per_tile(self.bias)
        return from_query, key @ self.key_weight[..., :, None]

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return query + jnp.swapaxes(key, -1, -2)


def concat(
    query_weight: Float[Array, "*#batch Hq"],
    key_weight: Float[Array, "*#batch Hk"],
    bias: Float[Array, "*#batch"] | float = 0.0,
) -> Concat:
    """Concat – linear without a nonlinearity, applied to each pair of query and key.

        score(t, s) = w . [q_t ; k_s] + b = q_t . wq + k_s . wk + b

    Under the softmax the query cancels: `exp(a_t + c_s) / sum_s exp(a_t + c_s)` does not depend on `a_t`, so every
    query gets the same weights and the layer cannot learn an alignment. Use `additive` (which has the tanh) for that.

    Args:
        query_weight: `wq`, `[..., Hq]`, the first Hq entries of `w`.
        key_weight: `wk`, `[..., Hk]`, the rest.
        bias: `b`, a number or `[...]`.

    Returns:
        A score; all arrays are differentiable. `jax_attention.nn.Concat` holds trained ones.

    Raises:
        ValueError: if an array has too few axes.
        TypeError: if one is not a float array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> rule = scores.concat(jnp.array([1., 0.]), jnp.array([0., 2.]), bias=0.5)
        >>> rule(jnp.array([[3., 9.]]), jnp.array([[9., 1.], [9., 2.]]))
        Array([[5.5, 7.5]], dtype=float32)

    Reference:
        Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation", eq. 7
        (the concat of the paper has a tanh: that is `additive`).
    """
    return Concat(
        check_array("query_weight", query_weight, ("Hq",)),
        check_array("key_weight", key_weight, ("Hk",)),
        check_array("bias", bias),
    )
