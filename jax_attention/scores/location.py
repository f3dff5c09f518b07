"""Location attention: one linear layer over [q; k] whose S outputs are the scores of the S positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array
from jax_attention.core.struct import array_field, struct
from jax_attention.scores.base import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@struct
class Location(Score):
    """`([q_t ; k_t] W + bias)_s`; see `location`."""

    key_per_query = True
    weight: jax.Array = array_field("Hq+Hk", "S")
    bias: jax.Array | None = array_field("S", default=None)

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Rows `[q_t ; k_t ; 1]` and columns `[W_s ; b_s]`, so that `tile` is an ordinary product of rows."""
        shape = jnp.broadcast_shapes(query.shape[:-1], key.shape[:-1])
        rows = jnp.concatenate([jnp.broadcast_to(x, (*shape, x.shape[-1])) for x in (query, key)], axis=-1)
        columns = jnp.swapaxes(self.weight, -1, -2)
        if self.bias is not None:
            rows = jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], axis=-1)
            shape = jnp.broadcast_shapes(columns.shape[:-1], self.bias.shape)
            columns = jnp.broadcast_to(columns, (*shape, columns.shape[-1]))
            columns = jnp.concatenate([columns, jnp.broadcast_to(self.bias, shape)[..., None]], axis=-1)
        return rows, columns

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return query @ jnp.swapaxes(key, -1, -2)

    def columns(self, key: jax.Array) -> int:
        """S, fixed by the shape of W whatever the key is."""
        return self.weight.shape[-1]


def location(weight: Float[Array, "*#batch HqHk S"], bias: Float[Array, "*#batch S"] | None = None) -> Location:
    """Location attention (concat – linear – softmax): a linear layer over query and key scores the S positions.

        score(t, s) = ([q_t ; k_t] W + b)_s

    Query and key are concatenated row by row (a decoder's state and its current input, say), both with T rows; the
    value has S rows, and S is fixed by the shape of W. The content of the S positions has no influence on the scores.

    Args:
        weight: `W`, `[..., Hq + Hk, S]`.
        bias: `b`, `[..., S]` or None.

    Returns:
        A score; both arrays are differentiable. `jax_attention.nn.Location` holds trained ones.

    Raises:
        ValueError: if an array has too few axes or the two disagree in S; by `attend`, if key and query differ in T
            or the value has not S rows.
        TypeError: if one is not a float array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> rule = scores.location(jnp.array([[1., 0., 2.], [0., 1., 2.]]))
        >>> rule(jnp.array([[3.]]), jnp.array([[4.]]))
        Array([[ 3.,  4., 14.]], dtype=float32)

    Reference:
        Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation", eq. 8
        (the score of the paper reads the decoder state alone: `Hk = 0`).
    """
    weight = check_array("weight", weight, ("Hq+Hk", "S"))
    bias = None if bias is None else check_array("bias", bias, ("S",), {"S": weight.shape[-1]})
    return Location(weight, bias)
