"""Location attention: the outputs of one linear layer over [q; k] are the scores of the S positions."""

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
        """Rows are the joined pairs; columns are the columns of W. From here on it is an ordinary product."""
        lead = jnp.broadcast_shapes(query.shape[:-1], key.shape[:-1])
        rows = jnp.concatenate([jnp.broadcast_to(x, (*lead, x.shape[-1])) for x in (query, key)], axis=-1)
        columns = jnp.swapaxes(self.weight, -1, -2)
        if self.bias is not None:
            rows = jnp.concatenate([rows, jnp.ones_like(rows[..., :1])], axis=-1)
            lead = jnp.broadcast_shapes(columns.shape[:-1], self.bias.shape)
            columns = jnp.broadcast_to(columns, (*lead, columns.shape[-1]))
            columns = jnp.concatenate([columns, jnp.broadcast_to(self.bias, lead)[..., None]], axis=-1)
        return rows, columns

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return query @ jnp.swapaxes(key, -1, -2)

    def columns(self, key: jax.Array) -> int:
        """S comes from the parameters, not from the key."""
        return self.weight.shape[-1]


def location(weight: Float[Array, "*#lead HqHk S"], bias: Float[Array, "*#lead S"] | None = None) -> Location:
    """Location attention (concat – linear – softmax): a linear layer over the joined pair names the S positions.

        score(t, s) = ([q_t ; k_t] W + b)_s

    Query and key are paired row by row (the decoder's state and its current input, say), both with T rows; the value
    has S rows, and S is fixed by the shape of W. Nothing here looks at the content of the S positions.

    Args:
        weight: `W`, `[..., Hq + Hk, S]`.
        bias: `b`, `[..., S]` or None.

    Returns:
        A score value; both arrays are differentiable. `jax_attention.nn.Location` holds trained ones.

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
        (theirs reads the decoder state alone: `Hk = 0`).
    """
    weight = check_array("weight", weight, ("Hq+Hk", "S"))
    bias = None if bias is None else check_array("bias", bias, ("S",), {"S": weight.shape[-1]})
    return Location(weight, bias)
