"""Text generation: check the call, read the prompt, run the compiled loop, and decode text between its segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.core.short_repr import short_repr
from jax_attention.decoding.checks import Request, check_request
from jax_attention.decoding.logit_transforms import LogitTransform
from jax_attention.decoding.loop import PAD, DecodeState, decode, prefill
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.sampler import Sampler
from jax_attention.decoding.text_streaming import StreamChunk, TextStreamers

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray


@short_repr
class GenerationResult(NamedTuple):
    """Result of `generate`. `batch` is the prompt's batch shape, after one axis for the samples if there are some."""

    tokens: Int[Array, "*batch T"]
    """The new tokens, T = max_new_tokens; positions after the last token of a row are 0."""
    lengths: Int[Array, "*batch"]
    """Number of new tokens of each row, the stop token included."""
    logprobs: Float[Array, "*batch T"]
    """Log-probabilities of the new tokens under the model, before any logit transform; 0 after the last token."""
    stopped: Bool[Array, "*batch"]
    """Whether the row ended by a stop token or stop string, not by the limit."""
    text: str | list | None
    """With a tokenizer: what the new tokens add to the text of the prompt, without stop token and stop string; a list
    (of lists) for a batch.
    """


def generate(
    model: Any,
    prompt: Prompts | Int[Array, "*batch T"] | Sequence[int] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampler: Sampler | LogitTransform | None = None,
    rng: PRNGKeyArray | None = None,
    num_samples: int | None = None,
    stop_tokens: int | Sequence[int] = (),
    stop_strings: str | Sequence[str] = (),
    tokenizer: Any = None,
    skip_special_tokens: bool = False,
    stream: Callable[[StreamChunk], None] | None = None,
    segment: int | None = None,
    chunk: int | None = None,
    beyond_context: bool = False,
) -> GenerationResult:
    """Continue a prompt, token by token.

        cache, logits = read(prompt);    until all rows stop:  token = sampler(logits);  cache, logits = step(token)

    One compiled program reads the prompt. A second one runs the whole loop and leaves it as soon as all rows have
    stopped. Prompt lengths, limits and cache sizes are rounded up (16, 32, 64, 128, 256, 384, …) with padding that
    nothing attends to, so nearby lengths run the same program. A row's tokens depend neither on other rows nor on
    padding.

    Args:
        model: a `models.TransformerLM`, or anything with its `hidden`, `unembed`, `init_cache` and `config`. A scanned
            model is unrolled first: pass `models.unroll_layers(model)` to do that only once.
        prompt: token ids: one sequence `[T]`, a batch `[..., T]`, a list, a list of lists of different lengths, or
            `pad_prompts(...)`.
        max_new_tokens: the most tokens to add to each row.
        sampler: `sampler(temperature(0.8), top_p(0.9))`, a single logit transform, or None for `greedy()`.
        rng: a JAX random key; needed unless greedy. Row i uses `fold_in(rng, i)`.
        num_samples: the number of continuations of each prompt, on a new leading axis; the prompt is read once. Sample
            s is the call with `fold_in(rng, s)`. None is one without the axis.
        stop_tokens: a row ends after any of these.
        stop_strings: a row ends when its new text contains any of these; the text is cut in front of it.
        tokenizer: has `decode(ids) -> str`; for `text`, stop strings, and text in the stream.
        skip_special_tokens: leave special tokens out of all text, by `decode(ids, skip_special_tokens=True)`.
        stream: called with each `StreamChunk` as it comes. An exception in it ends the generation and is not caught.
        segment: how many tokens the loop runs before the host looks at the text again; 8 if None. Only with `stream`
            or `stop_strings`.
        chunk: read the prompt in pieces of this many tokens, which bounds the memory for scores; None reads it at once.
        beyond_context: let prompt and new tokens exceed the model's context; not with learned positions.

    Returns:
        `GenerationResult(tokens, lengths, logprobs, stopped, text)`.

    Raises:
        ValueError: if the prompt is empty, holds an unknown token, or does not fit into the context with the new
            tokens; if a necessary argument is missing, or one would be ignored.
        TypeError: if an argument has the wrong type.

    Example:
        >>> import jax
        >>> from jax_attention import decoding, models
        >>> model = models.create(models.tiny(vocab_size=11, depth=1, width=16))
        >>> warm = decoding.sampler(decoding.temperature(0.8), decoding.top_p(0.9))
        >>> out = decoding.generate(model, [[1, 2, 3], [4]], max_new_tokens=5, sampler=warm, rng=jax.random.key(0))
        >>> out.tokens.shape, out.lengths
        ((2, 5), Array([5, 5], dtype=int32))

    Reference:
        https://github.com/huggingface/transformers/issues/16231: a Flax `generate` that ignored its processors.
    """
    request = check_request(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        rng=rng,
        num_samples=num_samples,
        stop_tokens=stop_tokens,
        stop_strings=stop_strings,
        tokenizer=tokenizer,
        skip_special_tokens=skip_special_tokens,
        stream=stream,
        segment=segment,
        chunk=chunk,
        beyond_context=beyond_context,
    )
    if getattr(model.config, "scan", False):
        model = models.unroll_layers(model)
    state = _start(model, request)
    texts = None
    if request.host_reads_tokens:
        state, texts = _decode_in_segments(model, request, state)
    else:
        state = decode(model, state, request.sampler, request.limit)
    return GenerationResult(
        state.tokens[..., :max_new_tokens], state.lengths, state.logprobs[..., :max_new_tokens], state.stopped, texts
    )


def _start(model: Any, request: Request) -> DecodeState:
    """The state after the prompt, with its first new token."""
    prompts, sizes = request.bucketed()
    return prefill(model, prompts, request.sampler, request.rng, request.stop, samples=request.num_samples, **sizes)


def _decode_in_segments(model: Any, request: Request, state: DecodeState) -> tuple[DecodeState, Any]:
    """Run the loop in segments, and decode text, find stop strings and stream after each of them.

    A segment is a call of the same compiled program with a nearer limit.
    """
    batch_shape = state.lengths.shape
    streamers = TextStreamers(batch_shape, request.continuations(batch_shape), request.stop_strings)
    while True:
        # Copies, because `decode` donates the state, and because the streamers write into lengths and stopped.
        done, tokens = int(state.history.step), np.array(state.tokens)
        lengths, stopped = np.array(state.lengths), np.array(state.stopped)
        last = done >= request.max_new_tokens or bool(stopped.all())
        for news in streamers.update(tokens, lengths, stopped, last):
            if request.stream is not None:
                request.stream(news)
        if last or stopped.all():
            break
        state = dataclasses.replace(state, lengths=jnp.asarray(lengths), stopped=jnp.asarray(stopped))
        limit = np.int32(min(request.max_new_tokens, done + request.segment))
        state = decode(model, state, request.sampler, limit)
    # The loop ran on to the end of the segment after a stop string was complete: remove those tokens.
    counts = np.arange(tokens.shape[-1]) < lengths[..., None]
    state = dataclasses.replace(
        state,
        tokens=jnp.asarray(np.where(counts, tokens, PAD)),
        logprobs=jnp.asarray(np.where(counts, np.array(state.logprobs), np.float32(0))),
        lengths=jnp.asarray(lengths),
        stopped=jnp.asarray(stopped),
    )
    return state, None if request.tokenizer is None else streamers.texts(batch_shape)
