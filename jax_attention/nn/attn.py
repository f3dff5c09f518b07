"""Attention as a layer in three steps: attend, concatenate the context with the query, map to the output size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.attention.attend import attend, attention_weights
from jax_attention.nn.freeze import freeze, unfreeze
from jax_attention.nn.linear import Linear
from jax_attention.nn.scores import Location
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Attn(ShortRepr, nnx.Module):
    """The classic attention layer of an RNN decoder.

        weights = softmax(score(Q, K)),        output = [Q ; weights @ V] W_out + b_out

    By default the score is the location rule with its own parameters, so Q and K are paired row by row and V has
    exactly `value_size1` rows. Any batch dimensions and any number T of rows are fine.

    Args:
        query_size: Hq.
        key_size: Hk.
        value_size1: S, rows of V; None takes any number, where the score allows it.
        value_size2: E, columns of V.
        output_size: D.
        score: another score: a module such as `nn.Additive`, a score of `jax_attention.scores`, or a function; None is
            `nn.Location`.
        join: False leaves the query out: `output = (weights @ V) W_out + b_out`, usual for dot products.
        param_dtype: dtype of the parameters.
        rngs: random keys, used here and not kept.

    Returns:
        A module with `score` and `combine`; call it as `layer(query, key, value)`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import nn
        >>> layer = nn.Attn(32, 32, 32, 64, 64, rngs=nnx.Rngs(0))
        >>> q, v = jnp.ones((1, 1, 32)), jnp.ones((1, 32, 64))
        >>> layer(q, q, v).shape, layer.weights(q, q, v).shape
        ((1, 1, 64), (1, 1, 32))

    Reference:
        Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation", eq. 5.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        value_size1: int | None,
        value_size2: int,
        output_size: int,
        *,
        score: Any = None,
        join: bool = True,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if score is None:
            score = Location(query_size, key_size, value_size1, param_dtype=param_dtype, rngs=rngs)
        self.score = freeze(score)
        self.combine = Linear(
            value_size2 + (query_size if join else 0), output_size, param_dtype=param_dtype, rngs=rngs
        )
        self.join, self.sizes = join, (query_size, key_size, value_size1, value_size2)

    def __call__(
        self,
        query: Float[Array, "*batch T Hq"],
        key: Float[Array, "*batch R Hk"],
        value: Float[Array, "*batch S E"],
        *,
        mask: Any = None,
    ) -> Float[Array, "*batch T D"]:
        """The query joined with what it attends to, mapped to `[..., T, D]`."""
        self._check(query, key, value)
        context = attend(query, key, value, score=unfreeze(self.score), mask=mask)
        if self.join:
            query = jnp.broadcast_to(query, (*context.shape[:-1], query.shape[-1]))
            context = jnp.concatenate([query, context], axis=-1)
        return self.combine(context)

    def weights(self, query: jax.Array, key: jax.Array, value: jax.Array, *, mask: Any = None) -> jax.Array:
        """The attention weights `[..., T, S]`; rows sum to 1."""
        self._check(query, key, value)
        return attention_weights(query, key, value, score=unfreeze(self.score), mask=mask)

    def _check(self, query: jax.Array, key: jax.Array, value: jax.Array) -> None:
        got = (query.shape[-1], key.shape[-1], *value.shape[-2:])
        if any(expected not in (None, size) for expected, size in zip(self.sizes, got, strict=True)):
            names = "(query_size, key_size, value_size1, value_size2)"
            raise ValueError(f"query, key, value: expected sizes {names} = {self.sizes}, got {got}.")
