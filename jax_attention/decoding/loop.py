"""The two compiled programs of generation: `prefill` reads the prompt, `decode` writes tokens until all rows stop.

Both are functions of (model, state, …) with the model as an argument: new parameters, another temperature, another
limit run the same program. The state is donated to `decode`, whose `while_loop` writes into the cache in place.

Rows never look at each other: row i draws from `fold_in(rng, i)`, its t-th token from `fold_in(fold_in(rng, i), t)`, so
a sample depends neither on the other rows nor on padding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.cache import EMPTY
from jax_attention.core.struct import data_field, struct
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

PAD = 0
"""What stands behind the last token of a row."""
PROBE = 1_000_003
"""An axis of this size marks the place of the copies' axis in the shapes of a cache; no real axis has it."""


@struct
class State:
    """Everything that generation carries from token to token."""

    cache: Any = data_field()
    step: Int[Array, ""] = data_field()
    """How many tokens were chosen."""
    tokens: Int[Array, "*lead M"] = data_field()
    """What was chosen so far; `PAD` behind it."""
    logprobs: Float[Array, "*lead M"] = data_field()
    """Their log-probabilities under the model, before any sampling rule."""
    lengths: Int[Array, "*lead"] = data_field()
    """How many tokens each row has, its stop token included."""
    stopped: Bool[Array, "*lead"] = data_field()
    token: Int[Array, "*lead"] = data_field()
    """The last token: the next input of the model."""
    position: Int[Array, "*lead"] = data_field()
    """Where that token stands."""
    rngs: PRNGKeyArray | None = data_field()
    """One key per row."""
    seen: Bool[Array, "*lead V"] | None = data_field()
    """Which tokens stand in the row; None when no rule asks."""


class PrefillResult(NamedTuple):
    """What is known when the prompts were read and nothing is chosen yet."""

    cache: Any
    logits: Float[Array, "*lead V"]
    position: Int[Array, "*lead"]
    """Where the last token stands."""
    seen: Bool[Array, "*lead V"] | None
    """Which tokens stand in the row; None when no rule asks."""


@partial(jax.jit, static_argnames=("capacity", "room", "chunk", "samples"))
def prefill(
    model: Any,
    prompts: Prompts,
    sampler: Sampler,
    rng: jax.Array | None,
    stop: jax.Array,
    *,
    capacity: int,
    room: int,
    chunk: int | None,
    samples: int | None,
) -> State:
    """Read the prompt into a fresh cache of `capacity` slots and choose the first of at most `room` tokens.

    `samples` rows follow from one reading of each prompt.
    """
    found = read(model, prompts, capacity=capacity, chunk=chunk, copies=samples, needs_seen=sampler.needs_seen)
    lead = found.position.shape
    zeros = jnp.zeros(lead, jnp.int32)
    state = State(
        cache=found.cache,
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.full((*lead, room), PAD, jnp.int32),
        logprobs=jnp.zeros((*lead, room), jnp.float32),
        lengths=zeros,
        stopped=zeros.astype(bool),
        token=zeros,
        position=found.position,
        rngs=None if rng is None else _row_rngs(rng, lead, samples is not None),
        seen=found.seen,
    )
    return _choose(state, found.logits, sampler, stop)


@partial(jax.jit, donate_argnums=1)
def decode(model: Any, state: State, sampler: Sampler, stop: jax.Array, limit: jax.Array) -> State:
    """Go on until every row has stopped or has `limit` tokens; the limit is traced."""

    def unfinished(state: State) -> jax.Array:
        return (state.step < limit) & ~jnp.all(state.stopped)

    def step(state: State) -> State:
        token, position = state.token[..., None], state.position[..., None]
        hidden, cache = model.hidden(token, positions=position, cache=state.cache)
        state = dataclasses.replace(state, cache=cache)
        return _choose(state, model.unembed(hidden[..., 0, :]), sampler, stop)

    return jax.lax.while_loop(unfinished, step, state)


def _choose(state: State, logits: jax.Array, sampler: Sampler, stop: jax.Array) -> State:
    """Append one token to every row that has not stopped."""
    logits = logits.astype(jnp.float32)
    rngs = state.rngs
    if rngs is not None:
        fold = jax.random.fold_in
        for _ in rngs.shape:
            fold = jax.vmap(fold, (0, None))
        rngs = fold(rngs, state.step)
    token = jnp.where(state.stopped, PAD, sampler(logits, state.seen, rngs))
    logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[..., None], axis=-1)[..., 0]
    logprob = jnp.where(state.stopped, 0, logprob)
    write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=state.step, axis=-1)
    seen = state.seen
    if seen is not None:
        seen = seen | (jnp.arange(seen.shape[-1]) == token[..., None])
    return dataclasses.replace(
        state,
        step=state.step + 1,
        tokens=write(state.tokens, token[..., None]),
        logprobs=write(state.logprobs, logprob[..., None]),
        lengths=state.lengths + ~state.stopped,
        stopped=state.stopped | jnp.any(token[..., None] == stop, axis=-1),
        token=token,
        position=state.position + 1,
        seen=seen,
    )


def read(
    model: Any, prompts: Prompts, *, capacity: int, chunk: int | None, copies: int | None, needs_seen: bool
) -> PrefillResult:
    """Read each prompt once into a fresh cache; `copies` of what follows stand on a new axis in front, None is without.

    Only the last row of each prompt goes through the head.
    """
    lead = prompts.lengths.shape
    hidden, cache = _read(model, prompts, model.init_cache(batch=lead, capacity=capacity), chunk)
    logits, position = model.unembed(hidden), prompts.lengths - 1
    seen = _seen(prompts, logits.shape[-1]) if needs_seen else None
    if copies is None:
        return PrefillResult(cache, logits, position, seen)

    def repeat(x: jax.Array, axis: int = 0) -> jax.Array:
        return jnp.broadcast_to(jnp.expand_dims(x, axis), (*x.shape[:axis], copies, *x.shape[axis:]))

    cache = along_copies(repeat, model, cache, lead, capacity)
    return PrefillResult(cache, *jax.tree.map(repeat, (logits, position, seen)))


def along_copies(
    change: Callable[[jax.Array, int], jax.Array], model: Any, cache: Any, lead: tuple[int, ...], capacity: int
) -> Any:
    """`change(x, axis)` for each array of a cache that has rows; `axis` is the one of copies, in front of `lead`."""
    probe = jax.eval_shape(lambda: model.init_cache(batch=(PROBE, *lead), capacity=capacity))

    def one(x: jax.Array, marked: jax.ShapeDtypeStruct) -> jax.Array:
        return change(x, marked.shape.index(PROBE)) if PROBE in marked.shape else x

    return jax.tree.map(one, cache, probe)


def _read(model: Any, prompts: Prompts, cache: Any, chunk: int | None) -> tuple[jax.Array, Any]:
    """The hidden state `[..., D]` of each prompt's last token, and the cache with all of them."""
    count = prompts.tokens.shape[-1]
    last = jnp.max(jnp.where(prompts.positions == EMPTY, 0, jnp.arange(count)), axis=-1)

    def part(cache: Any, entry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        tokens, positions, start = entry
        hidden, cache = model.hidden(tokens, positions=positions, cache=cache)
        row = jnp.clip(last - start, 0, tokens.shape[-1] - 1)
        return cache, jnp.take_along_axis(hidden, row[..., None, None], axis=-2)[..., 0, :]

    if chunk is None:
        cache, hidden = part(cache, (prompts.tokens, prompts.positions, jnp.zeros((), jnp.int32)))
        return hidden, cache
    cut = lambda x: jnp.moveaxis(x.reshape(*x.shape[:-1], -1, chunk), -2, 0)  # noqa: E731
    entries = (cut(prompts.tokens), cut(prompts.positions), jnp.arange(0, count, chunk))
    cache, rows = jax.lax.scan(part, cache, entries)
    return jnp.take_along_axis(rows, (last // chunk)[None, ..., None], axis=0)[0], cache


def _seen(prompts: Prompts, vocab_size: int) -> jax.Array:
    """Which tokens stand in each prompt, padding left out: bool `[..., V]`."""
    flat = prompts.tokens.reshape(-1, prompts.tokens.shape[-1])
    real = prompts.positions.reshape(flat.shape) != EMPTY
    seen = jnp.zeros((flat.shape[0], vocab_size), bool)
    seen = seen.at[jnp.arange(flat.shape[0])[:, None], jnp.where(real, flat, vocab_size)].set(True, mode="drop")
    return seen.reshape(*prompts.lengths.shape, vocab_size)


def _row_rngs(rng: jax.Array, lead: tuple[int, ...], samples: bool) -> jax.Array:
    """`fold_in(rng, row)` for each row; with an axis of samples in front, `fold_in(fold_in(rng, sample), row)`."""
    if samples:
        rngs = jax.vmap(partial(jax.random.fold_in, rng))(jnp.arange(lead[0]))
        return jax.vmap(lambda rng: _row_rngs(rng, lead[1:], False))(rngs)
    return jax.vmap(partial(jax.random.fold_in, rng))(jnp.arange(math.prod(lead))).reshape(lead)
