"""The two compiled programs of generation: `prefill` reads the prompt, `decode` writes tokens until all rows stop.

Both are functions of (model, state, …) with the model as an argument, so new parameters, another temperature and
another limit run the same program. The state is donated to `decode`, whose `while_loop` writes into the cache in place.

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
from jax_attention.core.short_repr import short_repr
from jax_attention.core.struct import data_field, struct
from jax_attention.decoding.history import History, start_history
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.sampler import Sampler

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

PAD = 0
"""Token id of positions after the last token of a row."""
PROBE = 1_000_003
"""Size of a batch dimension that marks its place in the shapes of a cache. A prime that no real axis has, so an axis of
this size in a cache can only be that dimension.
"""


@struct
class DecodeState:
    """Carry of the decoding loop; `batch` is the batch shape, M the number of tokens that fit."""

    cache: Any = data_field()
    history: History = data_field()
    """All tokens of the rows so far, prompts included, and the number of tokens chosen."""
    tokens: Int[Array, "*batch M"] = data_field()
    """The tokens chosen so far, then `PAD`."""
    logprobs: Float[Array, "*batch M"] = data_field()
    """Log-probabilities of the tokens under the model, before any logit transform."""
    lengths: Int[Array, "*batch"] = data_field()
    """Number of new tokens of each row, its stop token included."""
    stopped: Bool[Array, "*batch"] = data_field()
    token: Int[Array, "*batch"] = data_field()
    """The last token: the next input of the model."""
    rngs: PRNGKeyArray | None = data_field()
    """One key per row."""


@short_repr
class PrefillResult(NamedTuple):
    """Result of reading the prompts, before a token is chosen."""

    cache: Any
    logits: Float[Array, "*batch V"]
    """Logits of the first new token."""
    history: History
    """The tokens of the prompts."""


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
) -> DecodeState:
    """Read the prompts into a fresh cache of `capacity` slots, and choose the first of at most `room` tokens.

    With `samples` each prompt is read once and copied that often, along a new leading axis.
    """
    prefilled = read_prompts(
        model, prompts, stop, capacity=capacity, chunk=chunk, copies=samples, needs_seen=sampler.needs_seen
    )
    batch_shape = prefilled.history.lengths.shape
    zeros = jnp.zeros(batch_shape, jnp.int32)
    state = DecodeState(
        cache=prefilled.cache,
        history=prefilled.history,
        tokens=jnp.full((*batch_shape, room), PAD, jnp.int32),
        logprobs=jnp.zeros((*batch_shape, room), jnp.float32),
        lengths=zeros,
        stopped=zeros.astype(bool),
        token=zeros,
        rngs=None if rng is None else _fold_in_rows(rng, batch_shape, samples is not None),
    )
    return _append_token(state, prefilled.logits, sampler)


@partial(jax.jit, donate_argnums=1)
def decode(model: Any, state: DecodeState, sampler: Sampler, limit: jax.Array) -> DecodeState:
    """Append tokens until every row has stopped or has `limit` tokens; the limit is traced."""

    def is_unfinished(state: DecodeState) -> jax.Array:
        return (state.history.step < limit) & ~jnp.all(state.stopped)

    def step(state: DecodeState) -> DecodeState:
        token, position = state.token[..., None], state.history.lengths[..., None] - 1
        hidden, cache = model.hidden(token, positions=position, cache=state.cache)
        state = dataclasses.replace(state, cache=cache)
        return _append_token(state, model.unembed(hidden[..., 0, :]), sampler)

    return jax.lax.while_loop(is_unfinished, step, state)


def _append_token(state: DecodeState, logits: jax.Array, sampler: Sampler) -> DecodeState:
    """Choose one token for every row that has not stopped."""
    logits, history = logits.astype(jnp.float32), state.history
    rngs = state.rngs
    if rngs is not None:
        # fold_in takes a single key; one vmap per batch dimension.
        fold_in = jax.random.fold_in
        for _ in rngs.shape:
            fold_in = jax.vmap(fold_in, (0, None))
        rngs = fold_in(rngs, history.step)
    token = jnp.where(state.stopped, PAD, sampler(logits, history, rngs))
    logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[..., None], axis=-1)[..., 0]
    logprob = jnp.where(state.stopped, 0, logprob)
    write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=history.step, axis=-1)
    return dataclasses.replace(
        state,
        history=history.append(token),
        tokens=write(state.tokens, token[..., None]),
        logprobs=write(state.logprobs, logprob[..., None]),
        lengths=state.lengths + (~state.stopped).astype(state.lengths.dtype),
        stopped=state.stopped | jnp.isin(token, history.stop_tokens),
        token=token,
    )


def read_prompts(
    model: Any,
    prompts: Prompts,
    stop: jax.Array,
    *,
    capacity: int,
    chunk: int | None,
    copies: int | None,
    needs_seen: bool,
) -> PrefillResult:
    """Read each prompt once into a fresh cache, and copy the result along a new leading axis unless `copies` is None.

    Only the last row of each prompt goes through the head: logits of a whole prompt would take `[T, V]`.
    """
    batch_shape = prompts.lengths.shape
    hidden, cache = _read(model, prompts, model.init_cache(batch=batch_shape, capacity=capacity), chunk)
    logits = model.unembed(hidden)
    history = start_history(prompts, stop, capacity, logits.shape[-1] if needs_seen else None)
    if copies is None:
        return PrefillResult(cache, logits, history)

    def repeat(x: jax.Array, axis: int = 0) -> jax.Array:
        return jnp.broadcast_to(jnp.expand_dims(x, axis), (*x.shape[:axis], copies, *x.shape[axis:]))

    cache = map_cache_rows(repeat, model, cache, batch_shape, capacity)
    return PrefillResult(cache, repeat(logits), history.map_rows(repeat))


def map_cache_rows(
    change: Callable[[jax.Array, int], jax.Array],
    model: Any,
    cache: Any,
    batch_shape: tuple[int, ...],
    capacity: int,
) -> Any:
    """Apply `change(x, axis)` to each array of a cache that has rows; `axis` is the first batch dimension of `x`.

    Caches do not say where their batch dimensions are (a scanned model has layers in front of them, others do not).
    The shapes of a cache with one more batch dimension, of size `PROBE`, show it. Arrays without rows stay as they are.
    """
    probe = jax.eval_shape(lambda: model.init_cache(batch=(PROBE, *batch_shape), capacity=capacity))

    def change_array(x: jax.Array, probed: jax.ShapeDtypeStruct) -> jax.Array:
        return change(x, probed.shape.index(PROBE)) if PROBE in probed.shape else x

    return jax.tree.map(change_array, cache, probe)


def _read(model: Any, prompts: Prompts, cache: Any, chunk: int | None) -> tuple[jax.Array, Any]:
    """Hidden state `[..., D]` of each prompt's last token, and the cache with all tokens."""
    count = prompts.tokens.shape[-1]
    last = jnp.max(jnp.where(prompts.positions == EMPTY, 0, jnp.arange(count, dtype=jnp.int32)), axis=-1)

    def read_chunk(cache: Any, entry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        tokens, positions, start = entry
        hidden, cache = model.hidden(tokens, positions=positions, cache=cache)
        # Clipped, as the last token is in one chunk only; the rows of the other chunks are discarded below.
        row = jnp.clip(last - start, 0, tokens.shape[-1] - 1)
        return cache, jnp.take_along_axis(hidden, row[..., None, None], axis=-2)[..., 0, :]

    if chunk is None:
        cache, hidden = read_chunk(cache, (prompts.tokens, prompts.positions, jnp.zeros((), jnp.int32)))
        return hidden, cache
    split = lambda x: jnp.moveaxis(x.reshape(*x.shape[:-1], -1, chunk), -2, 0)  # noqa: E731
    entries = (split(prompts.tokens), split(prompts.positions), jnp.arange(0, count, chunk, dtype=jnp.int32))
    cache, rows = jax.lax.scan(read_chunk, cache, entries)
    return jnp.take_along_axis(rows, (last // chunk)[None, ..., None], axis=0)[0], cache


def _fold_in_rows(rng: jax.Array, batch_shape: tuple[int, ...], has_samples: bool) -> jax.Array:
    """`fold_in(rng, row)` for each row; with an axis of samples in front, `fold_in(fold_in(rng, sample), row)`."""
    if has_samples:
        rngs = jax.vmap(partial(jax.random.fold_in, rng))(jnp.arange(batch_shape[0]))
        return jax.vmap(lambda rng: _fold_in_rows(rng, batch_shape[1:], False))(rngs)
    rows = jnp.arange(math.prod(batch_shape))
    return jax.vmap(partial(jax.random.fold_in, rng))(rows).reshape(batch_shape)
