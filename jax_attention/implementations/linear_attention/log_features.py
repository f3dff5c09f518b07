"""Scores whose exponential is a product of features, under the softmax, by the logarithms of these features.

    exp(z_ts) = sum_f exp(a_tf + b_sf):    `concat` (F = 1), and `proportional` over features that are exponentials

A factor of the query cancels. For each feature of the keys the state has the largest logarithm so far, `[..., 1, F]`,
and the sum of `exp(b_s - largest) [v_s ; 1]`, `[..., F, E + 1]`. So a sum over earlier keys neither overflows nor
underflows, whatever keys come later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from jax_attention.core.explicit_axes import batch_sharding
from jax_attention.core.numerics import row_max
from jax_attention.core.sizes import is_at_most
from jax_attention.implementations.call import AttentionCall
from jax_attention.implementations.linear_attention import chunks, products
from jax_attention.implementations.linear_attention.causal_extent import CausalExtent
from jax_attention.implementations.linear_attention.products import State, append_ones, transpose
from jax_attention.normalizers import Softmax
from jax_attention.normalizers.softmax import exponentials

CHUNK = 64
"""Rows at a time: each pair within a chunk costs a logarithm and an exponential. The fastest of 32, 64, 128 and 256 on
a CPU, forward and backward, at F = 128 and E = 64."""

Sums = tuple[jax.Array, jax.Array]
"""Sums relative to a maximum, and that maximum."""


def attend(
    call: AttentionCall, extent: CausalExtent, state: State | None, chunk: int | None
) -> tuple[jax.Array, State]:
    """The output, and the state after all keys."""
    query, key = features(call)
    value, allowed, ahead = append_ones(call.value), jnp.asarray(extent.key_ok)[..., None], extent.ahead
    key = jnp.where(allowed, key, 0)
    before = empty_state(key, value) if state is None else state
    query_max = row_max(query)
    query, sums = query - query_max, (before.sums, before.largest)
    if ahead > 0:
        sums = append_keys(sums, *(x[..., :ahead, :] for x in (key, allowed, value)))
    if not is_at_most(key.shape[-2], ahead):
        rows = (query, *(chunks.moved(x, ahead, query.shape[-2]) for x in (key, allowed, value)))
        sums, result = chunks.scan(partial(step, call.score.tile), sums, rows, CHUNK if chunk is None else chunk)
    else:
        logs = query + sums[1]
        result = exponentials(logs, row_max(logs)) @ sums[0], row_max(logs)
    output = _normalized(call.normalize, query_max, *result)
    return output, State(sums[0], before.count + key.shape[-2], sums[1])


def features(call: AttentionCall) -> tuple[jax.Array, jax.Array]:
    """`a`, `[..., T, F]`, and `b`, `[..., S, F]`."""
    return call.score.project(call.query, call.key)


def append_keys(sums: Sums, key: jax.Array, allowed: jax.Array, value: jax.Array) -> Sums:
    """The sums after some keys `[..., S, F]` that every later query sees."""
    total, largest = sums
    key = jnp.where(allowed, key, -jnp.inf)
    new = jnp.maximum(largest, jnp.max(jax.lax.stop_gradient(key), axis=-2, keepdims=True))
    return transpose(Softmax().rescale(largest, new)) * total + transpose(exponentials(key, new)) @ value, new


def step(tile: Callable, sums: Sums, rows: tuple[jax.Array, ...]) -> tuple[Sums, Sums]:
    """Queries of one chunk against all earlier chunks by their sums, and against their own pair by pair."""
    query, key, allowed, value = rows
    earlier = query + sums[1]
    own = jnp.where(chunks.causal_block(query) & transpose(allowed), tile(query, key), -jnp.inf)
    largest = jnp.maximum(row_max(earlier), row_max(own))
    result = exponentials(earlier, largest) @ sums[0] + exponentials(own, largest) @ value
    return append_keys(sums, key, allowed, value), (result, largest)


def empty_state(key: jax.Array, value: jax.Array) -> State:
    """The state before any key, for features `[..., S, F]` and values `[..., S, E + 1]`."""
    state, sharding = products.empty_state(key, value), batch_sharding(2, key, value)
    shape = (*state.sums.shape[:-2], 1, key.shape[-1])
    return state._replace(largest=jnp.full(shape, -jnp.inf, key.dtype, out_sharding=sharding))


def _normalized(normalize: Softmax, query_max: jax.Array, sums: jax.Array, largest: jax.Array) -> jax.Array:
    """The query's factor cancels unless the softmax has a sink: then the sum over keys is relative to both."""
    if normalize.sinks_or_none() is not None:
        keys_max, largest = query_max + largest, normalize.row_max(query_max + largest, ~jnp.isneginf(largest))
        sums = sums * normalize.rescale(keys_max, largest)
    return sums[..., :-1] / normalize.denominator(sums[..., -1:], largest)
