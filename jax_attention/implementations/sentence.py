"""The sentence itself, dense: score, modify, mask, normalise, combine."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.ground.checks import check_broadcasts
from jax_attention.ground.numerics import compute_dtype, zero_rows
from jax_attention.implementations.problem import Attended, Problem
from jax_attention.masks.cover import surely_used
from jax_attention.mods import Mod
from jax_attention.normalizers import Normalizer
from jax_attention.normalizers.base import forbid, row_max
from jax_attention.normalizers.softmax import exponentials, logsumexp


def attend(problem: Problem) -> jax.Array:
    """`weights @ value`, `[*lead, T, E]`, in the query's dtype."""
    return _combine(problem, _stages(problem))


def weights(problem: Problem) -> jax.Array:
    """What multiplies the values, `[*lead, T, S]`, dropout included, in the query's dtype."""
    stages = _stages(problem)
    return _drop(problem, stages.numerator / stages.denominator).astype(problem.query.dtype)


def attend_with_stats(problem: Problem) -> Attended:
    """The same output, and statistics of scores and weights before dropout."""
    stages = _stages(problem)
    weights, scores = stages.numerator / stages.denominator, jnp.where(stages.where, stages.scores, -jnp.inf)
    positive = weights > 0
    surprise = jnp.where(positive, weights * jnp.log(jnp.where(positive, weights, 1)), 0)
    largest = row_max(scores)
    total = jnp.sum(exponentials(scores, largest), axis=-1, keepdims=True)
    return Attended(
        _combine(problem, stages),
        logsumexp=logsumexp(total, largest)[..., 0],
        max_score=jnp.max(scores, axis=-1, initial=-jnp.inf),
        entropy=-jnp.sum(surprise, axis=-1),
    )


def modified(
    scores: jax.Array,
    where: jax.Array,
    mods: tuple[Mod, ...],
    q_pos: jax.Array,
    k_pos: jax.Array,
    normalize: Normalizer,
) -> tuple[jax.Array, jax.Array]:
    """Scores after all mods, ready to be normalized, and the allowed pairs.

    What is forbidden becomes 0 before a mod sees it: a derivative of that mod at inf or NaN would otherwise turn the 0
    that comes back into NaN.
    """
    for mod in mods:
        scores, where = forbid(scores, where)
        scores = mod(scores, q_pos, k_pos)
    return normalize.forbid(scores, where)


def tile_positions(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """Positions that broadcast over a tile: `[..., T, 1]` and `[..., 1, S]`."""
    return jnp.asarray(problem.query_positions)[..., :, None], jnp.asarray(problem.key_positions)[..., None, :]


class _Stages(NamedTuple):
    """Scores ready to be normalized, the allowed pairs, and what the weights are a quotient of, all `[*lead, T, S]`
    (the denominator `[*lead, T, 1]`); and whether it is known that every query and every key is in an allowed pair.
    """

    scores: jax.Array
    where: jax.Array
    numerator: jax.Array
    denominator: jax.Array | float
    all_used: bool


def _stages(problem: Problem) -> _Stages:
    dtype = compute_dtype(problem.query, problem.key, problem.value)
    positions, shape = tile_positions(problem), problem.score_shape
    query, key = problem.query.astype(dtype), problem.key.astype(dtype)
    where, all_used = True, True
    if problem.mask is not None:
        where = _allowed(problem, *positions)
        all_used = surely_used(problem.mask, problem.query_positions, problem.key_positions)
    if not all_used:
        query, key = problem.score.zero_unused(query, key, jnp.any(where, axis=-1), jnp.any(where, axis=-2))
    scores = jnp.broadcast_to(problem.score(query, key), shape)
    where = jnp.broadcast_to(where, shape)
    scores, where = modified(scores, where, problem.mods, *positions, problem.normalize)
    quotient = problem.normalize.quotient(scores, where)
    return _Stages(scores, where, *quotient, all_used and not problem.forbids)


def _allowed(problem: Problem, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    """What the mask says, `[..., T, S]`; leading axes that it does not look at have size 1."""
    where, shape = problem.mask(q_pos, k_pos), problem.score_shape
    check_broadcasts(f"mask {problem.mask!r}", where, shape)
    where = where.reshape((1,) * (len(shape) - where.ndim) + where.shape)
    return jnp.broadcast_to(where, where.shape[:-2] + shape[-2:])


def _drop(problem: Problem, weights: jax.Array) -> jax.Array:
    if problem.dropout is None:
        return weights
    return problem.dropout(weights, *tile_positions(problem), problem.index)


def _combine(problem: Problem, stages: _Stages) -> jax.Array:
    """`weights @ value`, divided last: there are fewer outputs than weights."""
    value = problem.value.astype(stages.numerator.dtype)
    if not stages.all_used:
        value = zero_rows(value, jnp.any(stages.where, axis=-2))
    return (_drop(problem, stages.numerator) @ value / stages.denominator).astype(problem.query.dtype)
