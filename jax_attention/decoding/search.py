"""The two compiled programs of beam search: `start` reads the prompts, `search` lengthens beams until rows are done.

A row has K running beams and K slots for finished ones. The axis of the K is in front of the batch dimensions of the
prompts, so that rows never look at each other. Only arrays that differ between beams (tokens, score, cache) have it.
A beam that does not exist yet, or no longer, has the score -inf. No large negative number is used in its place, which a
real score could fall below.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.short_repr import short_repr
from jax_attention.core.struct import data_field, struct
from jax_attention.decoding.history import History
from jax_attention.decoding.loop import PAD, map_cache_rows, read_prompts
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


@short_repr
class StoppingCriteria(NamedTuple):
    """Numbers that decide when a beam and when a row is finished. All are traced: others run the same programs."""

    stop: Int[Array, "S"]
    """Stop tokens, padded with -1."""
    limit: Int[Array, ""]
    """The most tokens of a beam."""
    penalty: Float[Array, ""]
    """A finished beam scores (sum of log-probabilities) / length^penalty."""
    min_length: Int[Array, ""]
    """Running beams are compared with finished ones as if they had at least this length."""
    stop_when_full: Bool[Array, ""]
    """Whether a row is done as soon as K beams have finished."""


@short_repr
class Hypotheses(NamedTuple):
    """K beams of each row, best first."""

    tokens: Int[Array, "K *batch M"]
    """The tokens, then `PAD`."""
    scores: Float[Array, "K *batch"]
    """Sums of log-probabilities of running beams, scores of finished ones; -inf where there is no beam."""
    lengths: Int[Array, "K *batch"]


@struct
class BeamState:
    """Carry of the search loop."""

    cache: Any = data_field()
    history: History = data_field()
    """All tokens of the running beams, prompts included, and their number of new tokens."""
    running: Hypotheses = data_field()
    finished: Hypotheses = data_field()
    open: Bool[Array, "*batch"] = data_field()
    """Which rows go on; the others take no more finished beams."""
    token: Int[Array, "K *batch"] = data_field()
    """The last token of each running beam: the next input of the model."""
    parents: Int[Array, "K *batch"] = data_field()
    """Index of the beam in the cache that each running beam continues."""


@partial(jax.jit, static_argnames=("capacity", "room", "chunk", "beams"))
def start(
    model: Any,
    prompts: Prompts,
    sampler: Sampler,
    criteria: StoppingCriteria,
    *,
    capacity: int,
    room: int,
    chunk: int | None,
    beams: int,
) -> BeamState:
    """Read each prompt once, and choose the first of at most `room` tokens of each beam."""
    prefilled = read_prompts(
        model, prompts, criteria.stop, capacity=capacity, chunk=chunk, copies=beams, needs_seen=sampler.needs_seen
    )
    zeros = jnp.zeros_like(prefilled.history.lengths)
    no_scores = jnp.full(zeros.shape, -jnp.inf)
    no_beams = Hypotheses(jnp.full((*zeros.shape, room), PAD, jnp.int32), no_scores, zeros)
    state = BeamState(
        cache=prefilled.cache,
        history=prefilled.history,
        # All K beams are the same prompt. Only the first gets a score, or all K would choose the same tokens.
        running=no_beams._replace(scores=no_scores.at[0].set(0)),
        finished=no_beams,
        open=jnp.ones(zeros.shape[1:], bool),
        token=zeros,
        parents=zeros,
    )
    return _extend(state, prefilled.logits, sampler, criteria)


@partial(jax.jit, static_argnames="capacity", donate_argnums=1)
def search(model: Any, state: BeamState, sampler: Sampler, criteria: StoppingCriteria, *, capacity: int) -> BeamState:
    """Lengthen the beams until no row is open, or the limit is reached."""
    batch_shape = state.open.shape

    def is_unfinished(state: BeamState) -> jax.Array:
        return (state.history.step < criteria.limit) & jnp.any(state.open)

    def step(state: BeamState) -> BeamState:
        # Each beam continues the keys and values of its parent. Reordered here, where the model reads them next, they
        # are copied layer by layer: temporary memory is less than half of the K caches, not a second copy of them.
        reorder = lambda x, axis: _take_beams(x, state.parents, axis)  # noqa: E731
        cache = map_cache_rows(reorder, model, state.cache, batch_shape, capacity)
        token, position = state.token[..., None], state.history.lengths[..., None] - 1
        hidden, cache = model.hidden(token, positions=position, cache=cache)
        return _extend(dataclasses.replace(state, cache=cache), model.unembed(hidden[..., 0, :]), sampler, criteria)

    return jax.lax.while_loop(is_unfinished, step, state)


def _extend(state: BeamState, logits: jax.Array, sampler: Sampler, criteria: StoppingCriteria) -> BeamState:
    """Lengthen the beams by one token, in the three steps of `beam_search`: finish, keep, go on."""
    # sums [K, V] = sum of each beam + log softmax(its logits)
    logprobs = sampler.logits(jax.nn.log_softmax(logits.astype(jnp.float32)), state.history)
    sums = state.running.scores[..., None] + logprobs
    length = state.history.step + 1
    is_stop = jnp.isin(jnp.arange(sums.shape[-1], dtype=jnp.int32), criteria.stop)

    # Finish: of the K largest sums those whose token is a stop token, or all at the limit;  score = sum / n^penalty.
    best, token, _ = _top_beams(state, sums)
    ends = state.open[None] & (is_stop[token] | (length == criteria.limit))
    best = best._replace(scores=jnp.where(ends, best.scores / _divisor(length, criteria), -jnp.inf))

    # Keep: the K finished beams of highest score, old and new.
    candidates = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), state.finished, best)
    _, indices = _top(candidates.scores, len(best.scores))
    finished = jax.tree.map(lambda x: _take_beams(x, indices), candidates)

    # Go on: the K largest sums whose token is no stop token.
    is_stop = jnp.expand_dims(is_stop, range(sums.ndim - 1))
    running, token, parents = _top_beams(state, jnp.where(is_stop, -jnp.inf, sums))
    history = state.history.map_rows(lambda x: _take_beams(x, parents)).append(token)

    # A row stays open while its best running beam may still score better than its worst finished one.
    best_possible = running.scores[0] / _divisor(jnp.maximum(length, criteria.min_length), criteria)
    worst = jnp.min(finished.scores, axis=0)
    is_full = worst > -jnp.inf
    return dataclasses.replace(
        state,
        history=history,
        running=running,
        finished=finished,
        # `~(a <= b)` and not `a > b`: a NaN keeps the row open until the limit, and shows in the scores.
        open=state.open & ~(best_possible <= worst) & ~(criteria.stop_when_full & is_full),
        token=token,
        parents=parents,
    )


def _top_beams(state: BeamState, sums: jax.Array) -> tuple[Hypotheses, jax.Array, jax.Array]:
    """The K largest of all `sums [K, ..., V]` as beams, with the last token and the parent of each."""
    beams, vocab_size = sums.shape[0], sums.shape[-1]
    # [K, ..., V] -> [K V, ...]: beam and token in one axis, so that one beam may continue in several ways.
    scores, indices = _top(jnp.moveaxis(sums, -1, 1).reshape(-1, *sums.shape[1:-1]), beams)
    parents, token = indices // vocab_size, indices % vocab_size
    tokens = _take_beams(state.running.tokens, parents)
    tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[..., None], state.history.step, axis=-1)
    return Hypotheses(tokens, scores, jnp.full_like(token, state.history.step + 1)), token, parents


def _divisor(length: jax.Array, criteria: StoppingCriteria) -> jax.Array:
    """length^penalty, by which a sum of log-probabilities is divided."""
    return length.astype(jnp.float32) ** criteria.penalty


def _top(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest entries along the first axis and their indices; the first of equal ones."""
    largest, indices = jax.lax.top_k(jnp.moveaxis(x, 0, -1), count)
    return jnp.moveaxis(largest, -1, 0), jnp.moveaxis(indices, -1, 0).astype(jnp.int32)


def _take_beams(x: jax.Array, indices: jax.Array, axis: int = 0) -> jax.Array:
    """Reorder the axis of beams by `indices [K, *batch]`, for `x [..., K, *batch, ...]`."""
    indices = indices.reshape((1,) * axis + indices.shape + (1,) * (x.ndim - axis - indices.ndim))
    return jnp.take_along_axis(x, indices, axis)
