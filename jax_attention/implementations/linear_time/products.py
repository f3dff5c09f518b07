"""Scores that are products of rows: the state is the sum of `k_s [v_s ; 1]^T` over the keys seen."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.implementations.linear_time import chunks
from jax_attention.implementations.linear_time.seen import Seen
from jax_attention.implementations.problem import Problem
from jax_attention.normalizers import Proportional, Uniform
from jax_attention.scores import Concat


class State(NamedTuple):
    """Over the keys seen: `sum k_s [v_s ; 1]^T`, `[..., F, E + 1]`, and their number."""

    sums: jax.Array
    count: jax.Array | int


def attend(problem: Problem, seen: Seen, state: State | None, chunk: int | None) -> tuple[jax.Array, State]:
    """The output, and the state after all keys."""
    query, key = features(problem)
    value = with_one(problem.value)
    key, ahead = jnp.where(seen.key_ok[..., None], key, 0), seen.ahead
    sums, count = nothing(key, value) if state is None else state
    if ahead > 0:
        sums = sums + transposed(key[..., :ahead, :]) @ value[..., :ahead, :]
    if ahead < key.shape[-2]:
        rows = (query, *(chunks.moved(x, ahead, query.shape[-2]) for x in (key, value)))
        sums, found = chunks.scan(step, sums, rows, chunk)
    else:
        found = query @ sums
    total = found[..., -1:]
    if not isinstance(problem.normalize, Proportional):
        total = (count + seen.counts())[..., None].astype(found.dtype)
    output = found[..., :-1] / problem.normalize.denominator(total, None)
    return output, State(sums, count + key.shape[-2])


def step(sums: jax.Array, rows: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Queries of one chunk against all earlier chunks by their sums, and against their own pair by pair."""
    query, key, value = rows
    scores = jnp.where(chunks.upto(query), query @ transposed(key), 0)
    return sums + transposed(key) @ value, query @ sums + scores @ value


def features(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """`[..., T, F]` and `[..., S, F]` whose products are the scores; under `uniform` they are 1."""
    if isinstance(problem.normalize, Uniform):
        *lead, rows, columns = problem.score_shape
        return tuple(jnp.ones((*(1 for _ in lead), count, 1), problem.value.dtype) for count in (rows, columns))
    query, key = problem.score.project(problem.query, problem.key)
    if isinstance(problem.score, Concat):  # a + c = [a ; 1] . [1 ; c]
        return with_one(query), jnp.concatenate([jnp.ones_like(key), key], axis=-1)
    return query, key


def with_one(x: jax.Array) -> jax.Array:
    """One more feature, which is 1."""
    return jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], axis=-1)


def transposed(x: jax.Array) -> jax.Array:
    """The last two axes exchanged."""
    return jnp.swapaxes(x, -1, -2)


def nothing(key: jax.Array, value: jax.Array) -> State:
    """The state before any key, for features `[..., S, F]` and values `[..., S, E + 1]`."""
    lead = jnp.broadcast_shapes(key.shape[:-2], value.shape[:-2])
    dtype = jnp.result_type(key.dtype, value.dtype)
    return State(jnp.zeros((*lead, key.shape[-1], value.shape[-1]), dtype), 0)
