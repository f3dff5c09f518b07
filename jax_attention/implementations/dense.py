"""The formula itself, over all scores at once: score, modify, mask, normalise, combine. The oracle of all others."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import row_max, zero_rows
from jax_attention.core.part_checks import check_broadcasts
from jax_attention.core.short_repr import short_repr
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.call import AttentionCall, AttentionOutput
from jax_attention.masks.block_coverage import all_rows_used
from jax_attention.normalizers.softmax import exponentials, logsumexp


@dataclasses.dataclass(frozen=True)
class Dense(Implementation):
    """The formula as it is written, `implementation="reference"`: any rule, any dtype, any derivative, memory `T S`.

    Returns:
        An implementation, for the argument `implementation` of all attention functions.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import Dense, attend
        >>> x = jnp.ones((3, 2))
        >>> bool((attend(x, x, x, implementation=Dense()) == attend(x, x, x, implementation="reference")).all())
        True
    """

    name: ClassVar[str] = "reference"
    uses_cached_jit: ClassVar[bool] = False

    def why_not(self, call: AttentionCall) -> str | None:
        return None

    def attend(self, call: AttentionCall) -> jax.Array:
        return attend(call)

    def weights(self, call: AttentionCall) -> jax.Array:
        return weights(call)

    def attend_with_stats(self, call: AttentionCall) -> AttentionOutput:
        return attend_with_stats(call)


def attend(call: AttentionCall) -> jax.Array:
    """`weights @ value`, `[*batch, T, E]`, in the query's dtype."""
    return _combine(call, _normalize(call))


def weights(call: AttentionCall) -> jax.Array:
    """What multiplies the values, `[*batch, T, S]`, dropout included, in the query's dtype."""
    w = _normalize(call)
    return _drop(call, w.numerator / w.denominator).astype(call.query.dtype)


def attend_with_stats(call: AttentionCall) -> AttentionOutput:
    """The same output, and statistics of scores and weights before dropout."""
    w = _normalize(call)
    weights, scores = w.numerator / w.denominator, w.scores
    if w.in_logarithms:  # statistics are those of the scores, which must stay finite: inf - inf would be NaN
        scores = jnp.exp(jnp.minimum(scores, 0.999 * math.log(float(jnp.finfo(scores.dtype).max))))
    scores = jnp.where(w.where, scores, -jnp.inf)
    positive = weights > 0
    # log(0) and its derivative must not be computed at all: 0 * inf would be NaN.
    surprise = jnp.where(positive, weights * jnp.log(jnp.where(positive, weights, 1)), 0)
    largest = row_max(scores)
    total = jnp.sum(exponentials(scores, largest), axis=-1, keepdims=True)
    return AttentionOutput(
        _combine(call, w),
        logsumexp=logsumexp(total, largest)[..., 0],
        max_score=jnp.max(scores, axis=-1, initial=-jnp.inf),
        entropy=-jnp.sum(surprise, axis=-1),
    )


@short_repr
class _Weights(NamedTuple):
    """Weights as a quotient, and what they were made from, all `[*batch, T, S]` (the denominator `[*batch, T, 1]`)."""

    scores: jax.Array
    where: jax.Array
    numerator: jax.Array
    denominator: jax.Array | float
    all_used: bool
    """Whether it is known when traced that every query and every key is in an allowed pair."""
    in_logarithms: bool
    """Whether `scores` are the logarithms of the scores. One of -inf is then a score of 0, which forbids no pair."""


def _normalize(call: AttentionCall) -> _Weights:
    """Stages 1 and 2: score, modify, mask, normalise."""
    shape, normalize, call = call.score_shape, call.normalize, call.in_compute_dtype().in_logarithms()
    where, all_used = True, True
    if call.mask is not None:
        where = _allowed(call)
        all_used = all_rows_used(call.mask, call.query_positions, call.key_positions)
    if not all_used:
        call = call.zero_unused(jnp.any(where, axis=-1), jnp.any(where, axis=-2))
    scores = jnp.broadcast_to(call.score(call.query, call.key), shape)
    where = jnp.broadcast_to(where, shape)
    scores, allowed = call.modify(scores, where)
    numerator, denominator = call.normalize.quotient(scores, allowed)
    in_logarithms = call.normalize is not normalize
    where, all_used = where if in_logarithms else allowed, all_used and not call.may_forbid_pairs
    return _Weights(scores, where, numerator, denominator, all_used, in_logarithms)


def _allowed(call: AttentionCall) -> jax.Array:
    """What the mask says, `[..., T, S]`; batch dimensions that it does not look at have size 1."""
    where, shape = call.mask(*call.pair_positions), call.score_shape
    check_broadcasts(f"mask {call.mask!r}", where, shape)
    where = where.reshape((1,) * (len(shape) - where.ndim) + where.shape)
    return jnp.broadcast_to(where, where.shape[:-2] + shape[-2:])


def _drop(call: AttentionCall, weights: jax.Array) -> jax.Array:
    if call.dropout is None:
        return weights
    return call.dropout(weights, *call.pair_positions, call.batch_index)


def _combine(call: AttentionCall, w: _Weights) -> jax.Array:
    """Stage 3: `weights @ value`, divided last because there are fewer outputs than weights."""
    value = call.value.astype(w.numerator.dtype)
    if not w.all_used:
        value = zero_rows(value, jnp.any(w.where, axis=-2))  # a weight of 0 does not stop NaN: 0 * NaN = NaN
    return (_drop(call, w.numerator) @ value / w.denominator).astype(call.query.dtype)
