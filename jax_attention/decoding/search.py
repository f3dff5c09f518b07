"""The two compiled programs of beam search: `start` reads the prompts, `search` lengthens beams until rows are done.

A row has K running beams and K places for finished ones. The axis of the K stands in front of the prompts' own, so that
rows never look at each other; only what belongs to a beam (its tokens, its score, its cache) has it. Beams that do not
exist yet, or no longer, score -inf: no large negative number stands for them, so none can win.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.struct import data_field, struct
from jax_attention.decoding.loop import PAD, along_copies, read
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


class StoppingCriteria(NamedTuple):
    """When a beam and a row are finished; numbers, all of them traced: other ones run the same programs."""

    stop: Int[Array, "S"]
    """Stop tokens, filled up by -1."""
    limit: Int[Array, ""]
    """The most tokens of a beam."""
    penalty: Float[Array, ""]
    """A finished beam scores (sum of log-probabilities) / length^penalty."""
    horizon: Int[Array, ""]
    """Running beams are judged as if their present sum stood at this length already; at their own if that is more."""
    first_best: Bool[Array, ""]
    """Whether a row is done as soon as K beams have finished."""


class Hypotheses(NamedTuple):
    """K beams of each row, best first."""

    tokens: Int[Array, "K *lead M"]
    """`PAD` behind the last."""
    scores: Float[Array, "K *lead"]
    """-inf where there is no beam."""
    lengths: Int[Array, "K *lead"]


@struct
class Search:
    """Everything that the search carries from token to token."""

    cache: Any = data_field()
    step: Int[Array, ""] = data_field()
    """How many tokens the running beams have."""
    running: Hypotheses = data_field()
    finished: Hypotheses = data_field()
    open: Bool[Array, "*lead"] = data_field()
    """Which rows go on; the others take no more finished beams."""
    token: Int[Array, "K *lead"] = data_field()
    """The last token of each running beam: the next input of the model."""
    parents: Int[Array, "K *lead"] = data_field()
    """Which of the beams in the cache each running one continues."""
    position: Int[Array, "K *lead"] = data_field()
    """Where that token stands."""
    seen: Bool[Array, "K *lead V"] | None = data_field()
    """Which tokens stand in the beam, prompt included; None when no rule asks."""


@partial(jax.jit, static_argnames=("capacity", "room", "chunk", "beams"))
def start(
    model: Any,
    prompts: Prompts,
    rules: Sampler,
    goal: StoppingCriteria,
    *,
    capacity: int,
    room: int,
    chunk: int | None,
    beams: int,
) -> Search:
    """Read each prompt once and choose the first of at most `room` tokens of each beam."""
    found = read(model, prompts, capacity=capacity, chunk=chunk, copies=beams, needs_seen=rules.needs_seen)
    zeros = jnp.zeros_like(found.position)
    nothing = jnp.full(zeros.shape, -jnp.inf)
    none = Hypotheses(jnp.full((*zeros.shape, room), PAD, jnp.int32), nothing, zeros)
    state = Search(
        cache=found.cache,
        step=jnp.zeros((), jnp.int32),
        # All beams are the prompt still: only the first counts, or each would find the same tokens.
        running=none._replace(scores=nothing.at[0].set(0)),
        finished=none,
        open=jnp.ones(zeros.shape[1:], bool),
        token=zeros,
        parents=zeros,
        position=found.position,
        seen=found.seen,
    )
    return _choose(state, found.logits, rules, goal)


@partial(jax.jit, static_argnames="capacity", donate_argnums=1)
def search(model: Any, state: Search, rules: Sampler, goal: StoppingCriteria, *, capacity: int) -> Search:
    """Go on until no row is open, or the limit is reached."""
    lead = state.open.shape

    def unfinished(state: Search) -> jax.Array:
        return (state.step < goal.limit) & jnp.any(state.open)

    def step(state: Search) -> Search:
        cache = along_copies(lambda x, axis: _pick(x, state.parents, axis), model, state.cache, lead, capacity)
        token, position = state.token[..., None], state.position[..., None]
        hidden, cache = model.hidden(token, positions=position, cache=cache)
        return _choose(dataclasses.replace(state, cache=cache), model.unembed(hidden[..., 0, :]), rules, goal)

    return jax.lax.while_loop(unfinished, step, state)


def _choose(state: Search, logits: jax.Array, rules: Sampler, goal: StoppingCriteria) -> Search:
    """Lengthen the beams by one token: of the K best those that end finish, the K best that do not end run on."""
    logprobs = rules.logits(jax.nn.log_softmax(logits.astype(jnp.float32)), state.seen)
    sums = state.running.scores[..., None] + logprobs
    length = state.step + 1
    stops = jnp.any(jnp.arange(sums.shape[-1])[:, None] == goal.stop, axis=-1)
    best, token, _ = _lengthen(state, sums)
    ending = state.open & (stops[token] | (length == goal.limit))
    best = best._replace(scores=jnp.where(ending, best.scores / _scale(length, goal), -jnp.inf))
    both = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), state.finished, best)
    _, places = _largest(both.scores, len(best.scores))
    finished = jax.tree.map(lambda x: _pick(x, places), both)
    running, token, parents = _lengthen(state, jnp.where(stops, -jnp.inf, sums))
    seen = state.seen
    if seen is not None:
        seen = _pick(seen, parents) | (jnp.arange(seen.shape[-1]) == token[..., None])
    hope, worst = running.scores[0] / _scale(jnp.maximum(length, goal.horizon), goal), jnp.min(finished.scores, axis=0)
    return dataclasses.replace(
        state,
        step=length,
        running=running,
        finished=finished,
        # Not `hope > worst`: NaN goes on to the limit, and shows.
        open=state.open & ~(hope <= worst) & ~(goal.first_best & (worst > -jnp.inf)),
        token=token,
        parents=parents,
        position=state.position + 1,
        seen=seen,
    )


def _lengthen(state: Search, sums: jax.Array) -> tuple[Hypotheses, jax.Array, jax.Array]:
    """The K largest of all `sums [K, ..., V]` as beams, with the last token and the parent of each."""
    beams, size = sums.shape[0], sums.shape[-1]
    scores, places = _largest(jnp.moveaxis(sums, -1, 1).reshape(-1, *sums.shape[1:-1]), beams)
    parents, token = places // size, places % size
    tokens = _pick(state.running.tokens, parents)
    tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token[..., None], state.step, axis=-1)
    return Hypotheses(tokens, scores, jnp.full_like(token, state.step + 1)), token, parents


def _scale(length: jax.Array, goal: StoppingCriteria) -> jax.Array:
    """What a sum over `length` tokens is divided by."""
    return length.astype(jnp.float32) ** goal.penalty


def _largest(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest along the first axis, and where they stood; the first of equal ones."""
    values, places = jax.lax.top_k(jnp.moveaxis(x, 0, -1), count)
    return jnp.moveaxis(values, -1, 0), jnp.moveaxis(places, -1, 0).astype(jnp.int32)


def _pick(x: jax.Array, places: jax.Array, axis: int = 0) -> jax.Array:
    """Reorder an axis of beams; `places [K, *lead]` for `x [..., K, *lead, ...]`."""
    index = places.reshape((1,) * axis + places.shape + (1,) * (x.ndim - axis - places.ndim))
    return jnp.take_along_axis(x, index, axis)
