"""Small networks over each pair of query and key: Bahdanau's additive score, and one linear layer (concat)."""

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
class Additive(Score):
    """`vector . tanh(q Wq + k Wk + bias)`; see `additive`."""

    query_weight: jax.Array = array_field("Hq", "A")
    key_weight: jax.Array = array_field("Hk", "A")
    bias: jax.Array | None = array_field("A", default=None)
    vector: jax.Array | None = array_field("A", default=None)

    @property
    def numbers_per_pair(self) -> int:
        """Number of hidden units A: `tile` forms all of them for each pair."""
        return self.query_weight.shape[-1]

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        projected = query @ self.query_weight
        if self.bias is not None:
            projected = projected + self.bias[..., None, :]
        return projected, key @ self.key_weight

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        hidden = jnp.tanh(query[..., :, None, :] + key[..., None, :, :])
        if self.vector is None:
            return jnp.sum(hidden, axis=-1)
        return jnp.sum(hidden * self.vector[..., None, None, :], axis=-1)


def additive(
    query_weight: Float[Array, "*#batch Hq A"],
    key_weight: Float[Array, "*#batch Hk A"],
    bias: Float[Array, "*#batch A"] | None = None,
    vector: Float[Array, "*#batch A"] | None = None,
) -> Additive:
    """Bahdanau's additive score, also called concat – linear – tanh (– sum).

        score(t, s) = sum_a vector_a tanh(q_t Wq + k_s Wk + bias)_a

    `q Wq + k Wk` equals `[q; k] W` with `W` stacked from the two, so a layer over the concatenated vectors is
    this score with its weight split after Hq rows. Without `vector` the hidden units are summed.

    Args:
        query_weight: `Wq`, `[..., Hq, A]`.
        key_weight: `Wk`, `[..., Hk, A]`; Hq and Hk may differ.
        bias: `[..., A]` or None.
        vector: `[..., A]`, or None for the plain sum.

    Returns:
        A score; all arrays are differentiable. `jax_attention.nn.Additive` holds trained ones.

    Raises:
        ValueError: if an array has too few axes or the hidden sizes A disagree.
        TypeError: if one is not a float array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> rule = scores.additive(jnp.eye(2), jnp.eye(2), vector=jnp.array([1., 2.]))
        >>> rule(jnp.zeros((1, 2)), jnp.array([[0.5, 0.5]])).round(4)
        Array([[1.3864]], dtype=float32)

    Reference:
        Bahdanau, Cho, Bengio (2015), "Neural machine translation by jointly learning to align and translate", A.1.2.
    """
    query_weight = check_array("query_weight", query_weight, ("Hq", "A"))
    hidden = {"A": query_weight.shape[-1]}
    return Additive(
        query_weight,
        check_array("key_weight", key_weight, ("Hk", "A"), hidden),
        None if bias is None else check_array("bias", bias, ("A",), hidden),
        None if vector is None else check_array("vector", vector, ("A",), hidden),
    )


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
