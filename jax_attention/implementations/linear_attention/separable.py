"""`concat` under softmax: `exp(a_t + c_s)` is a product, kept stable by the largest `c_s` so far.

The state is that maximum, `[..., 1, 1]`, and the sum of `exp(c_s - maximum) [v_s ; 1]`, `[..., 1, E + 1]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.core.sizes import is_at_most
from jax_attention.implementations.call import AttentionCall
from jax_attention.implementations.linear_attention import chunks
from jax_attention.implementations.linear_attention.causal_extent import CausalExtent
from jax_attention.implementations.linear_attention.products import append_ones, transpose
from jax_attention.normalizers import Softmax
from jax_attention.normalizers.softmax import exponentials

State = tuple[jax.Array, jax.Array]


def attend(call: AttentionCall, extent: CausalExtent, chunk: int | None) -> jax.Array:
    """The output `[*batch, T, E]`."""
    from_query, key = call.score.project(call.query, call.key)
    value = append_ones(call.value)
    batch = jnp.broadcast_shapes(key.shape[:-2], value.shape[:-2], jnp.shape(extent.key_ok)[:-1])
    key, value = (jnp.broadcast_to(x, batch + x.shape[-2:]) for x in (key, value))
    allowed = jnp.broadcast_to(extent.key_ok[..., None], key.shape)
    top, ahead, rows = jnp.full((*batch, 1, 1), -jnp.inf, key.dtype), extent.ahead, call.query.shape[-2]
    state = top, jnp.zeros((*batch, 1, value.shape[-1]), jnp.result_type(key, value))
    if ahead > 0:
        state = append_keys(state, *(x[..., :ahead, :] for x in (key, allowed, value)))
    if not is_at_most(key.shape[-2], ahead):
        _, state = chunks.scan(step, state, tuple(chunks.moved(x, ahead, rows) for x in (key, allowed, value)), chunk)
    return _normalized(call.normalize, from_query, *state)


def append_keys(state: State, key: jax.Array, allowed: jax.Array, value: jax.Array) -> State:
    """The state after some keys `[..., S, 1]` that every later query sees."""
    top, sums = state
    key = jnp.where(allowed, key, -jnp.inf)
    new = jnp.maximum(top, jnp.max(jax.lax.stop_gradient(key), axis=-2, keepdims=True))
    return new, Softmax().rescale(top, new) * sums + transpose(exponentials(key, new)) @ value


def step(state: State, rows: tuple[jax.Array, ...]) -> tuple[State, State]:
    """Each row of one chunk has a state of its own; the last one goes on."""
    top, sums = state
    key, allowed, value = rows
    key = jnp.where(allowed, key, -jnp.inf)
    new = jnp.maximum(top, jax.lax.cummax(jax.lax.stop_gradient(key), axis=key.ndim - 2))
    weights = exponentials(jnp.where(chunks.causal_block(key), transpose(key), -jnp.inf), new)
    result = new, Softmax().rescale(top, new) * sums + weights @ value
    return tuple(x[..., -1:, :] for x in result), result


def _normalized(normalize: Softmax, from_query: jax.Array, top: jax.Array, sums: jax.Array) -> jax.Array:
    """The query cancels unless the softmax has a sink: then the sum over keys counts `exp(a_t)` times."""
    row_max = top
    if normalize.sinks_or_none() is not None:
        constant = jax.lax.stop_gradient(from_query)
        row_max = normalize.row_max(constant + top, ~jnp.isneginf(top))
        sums = sums * normalize.rescale(constant + top, row_max) * jnp.exp(from_query - constant)
    return sums[..., :-1] / normalize.denominator(sums[..., -1:], row_max)
