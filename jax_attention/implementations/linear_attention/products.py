"""Scores that are products of features: the state is the sum of `k_s [v_s ; 1]^T` over the keys so far."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.explicit_axes import batch_sharding, rows_sharding
from jax_attention.core.short_repr import short_repr
from jax_attention.core.sizes import is_at_most
from jax_attention.implementations.call import AttentionCall
from jax_attention.implementations.linear_attention import chunks
from jax_attention.implementations.linear_attention.causal_extent import CausalExtent
from jax_attention.normalizers import Proportional, Uniform
from jax_attention.scores import Concat


@short_repr
class State(NamedTuple):
    """Over the keys so far: `sum k_s [v_s ; 1]^T`, `[..., F, E + 1]`, and their number.

    largest: where features are kept as logarithms, the largest of each feature, `[..., 1, F]`: sums are relative to it
    """

    sums: jax.Array
    count: jax.Array | int
    largest: jax.Array | None = None


def attend(
    call: AttentionCall, extent: CausalExtent, state: State | None, chunk: int | None
) -> tuple[jax.Array, State]:
    """The output, and the state after all keys."""
    query, key = features(call)
    value = append_ones(call.value)
    key, ahead = jnp.where(extent.key_ok[..., None], key, 0), extent.ahead
    sums, count, _ = empty_state(key, value) if state is None else state
    if ahead > 0:
        sums = sums + transpose(key[..., :ahead, :]) @ value[..., :ahead, :]
    if not is_at_most(key.shape[-2], ahead):
        rows = (query, *(chunks.moved(x, ahead, query.shape[-2]) for x in (key, value)))
        sums, output = chunks.scan(step, sums, rows, chunk)
    else:
        output = query @ sums
    total = output[..., -1:]
    if not isinstance(call.normalize, Proportional):
        total = (count + extent.counts())[..., None].astype(output.dtype)
    output = output[..., :-1] / call.normalize.denominator(total, None)
    return output, State(sums, count + key.shape[-2])


def step(sums: jax.Array, rows: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Queries of one chunk against all earlier chunks by their sums, and against their own pair by pair."""
    query, key, value = rows
    scores = jnp.where(chunks.causal_block(query), query @ transpose(key), 0)
    return sums + transpose(key) @ value, query @ sums + scores @ value


def features(call: AttentionCall) -> tuple[jax.Array, jax.Array]:
    """`[..., T, F]` and `[..., S, F]` whose products are the scores; under `uniform` they are 1."""
    if isinstance(call.normalize, Uniform):
        *batch, rows, columns = call.score_shape
        return tuple(jnp.ones((*(1 for _ in batch), count, 1), call.value.dtype) for count in (rows, columns))
    query, key = call.score.project(call.query, call.key)
    if isinstance(call.score, Concat):  # a + c = [a ; 1] . [1 ; c]
        return append_ones(query), jnp.concatenate([jnp.ones_like(key), key], axis=-1)
    return query, key


def append_ones(x: jax.Array) -> jax.Array:
    """Append a feature that is 1: its sum counts, or totals, the weights."""
    ones = jnp.ones((*x.shape[:-1], 1), x.dtype, out_sharding=rows_sharding(x, -1))
    return jnp.concatenate([x, ones], axis=-1)


def transpose(x: jax.Array) -> jax.Array:
    """Swap the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def empty_state(key: jax.Array, value: jax.Array) -> State:
    """The state before any key, for features `[..., S, F]` and values `[..., S, E + 1]`."""
    batch = jnp.broadcast_shapes(key.shape[:-2], value.shape[:-2])
    dtype = jnp.result_type(key.dtype, value.dtype)
    shape = (*batch, key.shape[-1], value.shape[-1])
    return State(jnp.zeros(shape, dtype, out_sharding=batch_sharding(2, key, value)), 0)
