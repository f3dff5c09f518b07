"""`concat` under softmax: `exp(a_t + c_s)` is a product, kept stable by the largest `c_s` so far.

The state is that maximum, `[..., 1, 1]`, and the sum of `exp(c_s - maximum) [v_s ; 1]`, `[..., 1, E + 1]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.implementations.linear_time import chunks
from jax_attention.implementations.linear_time.products import transposed, with_one
from jax_attention.implementations.linear_time.seen import Seen
from jax_attention.implementations.problem import Problem
from jax_attention.normalizers import Softmax
from jax_attention.normalizers.softmax import exponentials

State = tuple[jax.Array, jax.Array]


def attend(problem: Problem, seen: Seen, chunk: int | None) -> jax.Array:
    """The output."""
    from_query, key = problem.score.project(problem.query, problem.key)
    value = with_one(problem.value)
    lead = jnp.broadcast_shapes(key.shape[:-2], value.shape[:-2], jnp.shape(seen.key_ok)[:-1])
    key, value = (jnp.broadcast_to(x, lead + x.shape[-2:]) for x in (key, value))
    allowed = jnp.broadcast_to(seen.key_ok[..., None], key.shape)
    top, ahead, rows = jnp.full((*lead, 1, 1), -jnp.inf, key.dtype), seen.ahead, problem.query.shape[-2]
    state = top, jnp.zeros((*lead, 1, value.shape[-1]), jnp.result_type(key, value))
    if ahead > 0:
        state = joined(state, *(x[..., :ahead, :] for x in (key, allowed, value)))
    if ahead < key.shape[-2]:
        _, state = chunks.scan(step, state, tuple(chunks.moved(x, ahead, rows) for x in (key, allowed, value)), chunk)
    return _normalized(problem.normalize, from_query, *state)


def joined(state: State, key: jax.Array, allowed: jax.Array, value: jax.Array) -> State:
    """The state after some keys `[..., S, 1]` that are seen all at once."""
    top, sums = state
    key = jnp.where(allowed, key, -jnp.inf)
    new = jnp.maximum(top, jnp.max(jax.lax.stop_gradient(key), axis=-2, keepdims=True))
    return new, Softmax().rescale(top, new) * sums + transposed(exponentials(key, new)) @ value


def step(state: State, rows: tuple[jax.Array, ...]) -> tuple[State, State]:
    """Each row of one chunk has a state of its own; the last one goes on."""
    top, sums = state
    key, allowed, value = rows
    key = jnp.where(allowed, key, -jnp.inf)
    new = jnp.maximum(top, jax.lax.cummax(jax.lax.stop_gradient(key), axis=key.ndim - 2))
    weights = exponentials(jnp.where(chunks.upto(key), transposed(key), -jnp.inf), new)
    found = new, Softmax().rescale(top, new) * sums + weights @ value
    return tuple(x[..., -1:, :] for x in found), found


def _normalized(normalize: Softmax, from_query: jax.Array, top: jax.Array, sums: jax.Array) -> jax.Array:
    """The query cancels unless a sink stands beside its keys: then their sum is `exp(a_t)` times what it was."""
    anchor = top
    if normalize.sinks_or_none() is not None:
        constant = jax.lax.stop_gradient(from_query)
        anchor = normalize.anchor(constant + top, ~jnp.isneginf(top))
        sums = sums * normalize.rescale(constant + top, anchor) * jnp.exp(from_query - constant)
    return sums[..., :-1] / normalize.denominator(sums[..., -1:], anchor)
