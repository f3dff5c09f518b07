"""Checks of the arguments of `generate` and `beam_search` before any work starts, and the checked request."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.buckets import bucket
from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.decoding.continuation import Continuation, continuations
from jax_attention.decoding.history import NO_TOKEN
from jax_attention.decoding.history_transforms import MinNewTokens
from jax_attention.decoding.prompts import Prompts, as_prompts, pad_columns
from jax_attention.decoding.sampler import Sampler, as_sampler
from jax_attention.models.protocols import LanguageModel, Seq2Seq

SEGMENT = 8
"""Tokens that the loop runs before the host looks at them again, unless the caller says otherwise."""
MIN_STOP_SLOTS = 4
"""Smallest size of the array of stop tokens: up to 4 of them run the same compiled program."""


@short_repr
class Request(NamedTuple):
    """The arguments of `generate`, checked and converted."""

    prompts: Prompts
    max_new_tokens: int
    sampler: Sampler
    rng: jax.Array | None
    num_samples: int | None
    stop: np.ndarray
    """Stop tokens, int32, padded with -1 so that another number of them rarely recompiles."""
    stop_strings: tuple[str, ...]
    tokenizer: Any
    skip_special_tokens: bool
    stream: Callable | None
    segment: int
    chunk: int | None

    @property
    def limit(self) -> np.int32:
        """`max_new_tokens` as an array scalar, which is traced: another limit runs the same program."""
        return np.int32(self.max_new_tokens)

    @property
    def host_reads_tokens(self) -> bool:
        """Whether text is decoded, so that the host needs known tokens."""
        return self.stream is not None or bool(self.stop_strings) or self.tokenizer is not None

    def continuations(self, batch_shape: tuple[int, ...]) -> dict[tuple[int, ...], Continuation] | None:
        """What decodes each row of a batch; None without a tokenizer."""
        if self.tokenizer is None:
            return None
        return continuations(self.tokenizer, self.prompts, batch_shape, self.skip_special_tokens)

    def bucketed(self) -> tuple[Prompts, dict[str, int | None]]:
        """The prompts padded to a bucket, and the sizes that the programs are compiled for."""
        length = bucket(self.prompts.tokens.shape[-1])
        chunk = None if self.chunk is None or self.chunk >= length else self.chunk
        if chunk is not None:
            length = -(-length // chunk) * chunk
        capacity, room = bucket(length + self.max_new_tokens), bucket(self.max_new_tokens)
        return pad_columns(self.prompts, length), {"capacity": capacity, "room": room, "chunk": chunk}


def check_request(model: Any, prompt: Any, *, beyond_context: bool, **options: Any) -> Request:
    """Check all arguments of `generate`; an error names the one to change."""
    _check_model(model)
    count = check_int("max_new_tokens", options["max_new_tokens"], 1, "It is the most tokens to add.")
    prompts = _on_host(as_prompts(prompt))
    _check_tokens(prompts, model.config.vocab_size)
    _check_context(prompts, count, model.config, beyond_context)
    _check_mask(prompts, model.config, options["chunk"])
    _check_chunk(prompts, model.config, options["chunk"])
    sampler = as_sampler(options["sampler"])
    rng = _check_rng(options["rng"], sampler, options["num_samples"])
    strings = options["stop_strings"]
    strings = (strings,) if isinstance(strings, str) else tuple(strings)
    _check_streaming(strings, options["tokenizer"], options["stream"], options["segment"])
    _check_skip(options["skip_special_tokens"], options["tokenizer"])
    stop = _as_stop_array(options["stop_tokens"], model.config.vocab_size)
    _check_min_new_tokens(sampler, stop, count)
    chunk = options["chunk"]
    request = Request(
        prompts=prompts,
        max_new_tokens=count,
        sampler=sampler,
        rng=rng,
        num_samples=options["num_samples"],
        stop=stop,
        stop_strings=strings,
        tokenizer=options["tokenizer"],
        skip_special_tokens=options["skip_special_tokens"],
        stream=options["stream"],
        segment=SEGMENT if options["segment"] is None else options["segment"],
        chunk=None if chunk is None else check_int("chunk", chunk, 1, "It is the number of tokens read at once."),
    )
    traced = [name for name, x in (("prompt", prompts.tokens), ("rng", rng)) if isinstance(x, jax.core.Tracer)]
    fail_unless(
        not (traced and request.host_reads_tokens),
        f"{' and '.join(traced)}: expected known values with stream, stop_strings or tokenizer, which read tokens on "
        "the host, got traced ones. Leave those out under jit and vmap; for several samples use num_samples=.",
    )
    return request


def _check_model(model: Any) -> None:
    fail_unless(
        not isinstance(model, Seq2Seq),
        f"model: expected a language model, got an {type(model).__name__}, which reads a source first. Give its "
        "decoder: model.condition(source).",
        TypeError,
    )
    fail_unless(
        isinstance(model, LanguageModel),
        "model: expected a language model with hidden, unembed, init_cache and config, such as models.TransformerLM, "
        f"got {type(model).__name__}.",
        TypeError,
    )


def _on_host(prompts: Prompts) -> Prompts:
    """Convert known arrays to NumPy: padding them then compiles nothing."""
    return Prompts(*(x if isinstance(x, jax.core.Tracer) else np.asarray(x) for x in prompts))


def _check_tokens(prompts: Prompts, vocab_size: int) -> None:
    if isinstance(prompts.tokens, jax.core.Tracer):
        return
    unknown = prompts.tokens[(prompts.tokens < 0) | (prompts.tokens >= vocab_size)]
    if unknown.size:
        raise ValueError(
            f"prompt: expected token ids from 0 to {vocab_size - 1}, the vocabulary of the model, got {unknown[0]}. "
            "Encode the text with the tokenizer that the model was trained with."
        )


def _check_context(prompts: Prompts, count: int, config: Any, beyond_context: bool) -> None:
    """Refuse prompts that do not fit into the context together with all new tokens.

    The last new token counts although the model never reads it: a later call that goes on from here will. The context
    of a recurrent model limits its source only; its output may have any length.
    """
    if getattr(config, "endless", False):
        return
    learned = getattr(config, "position", None) == "learned"
    fail_unless(
        not (beyond_context and learned),
        f"beyond_context: expected False for learned positions, whose table ends at context = {config.context}, got "
        "True. Leave it out.",
    )
    longest = prompts.tokens.shape[-1]
    if not isinstance(prompts.lengths, jax.core.Tracer):
        longest = int(np.max(prompts.lengths))
    if beyond_context or longest + count <= config.context:
        return
    cure = "" if learned else " Or pass beyond_context=True: its positions go on, but it was not trained there."
    room = config.context - count
    if longest > config.context or room < 1:
        shorter = f"Keep the last tokens of the prompt, prompt[-n:], and n + max_new_tokens <= {config.context}."
        name, got = "prompt", f"{longest} tokens"
    else:
        shorter = f"Keep the last {room} tokens of the prompt, prompt[-{room}:], or lower max_new_tokens."
        name, got = "max_new_tokens", f"{longest} + {count}"
    raise ValueError(
        f"{name}: expected prompt and new tokens within the model's context of {config.context}, got {got}. "
        f"{shorter}{cure}"
    )


def _check_mask(prompts: Prompts, config: Any, chunk: int | None) -> None:
    """Refuse masks that let a token attend to later ones, which do not exist yet when text is generated.

    The exception is a prefix mask over a prompt that is read at once: all of those tokens exist.
    """
    known = not isinstance(prompts.lengths, jax.core.Tracer)
    shortest = int(np.min(prompts.lengths)) if known and chunk is None else 0
    fail_unless(
        not (hasattr(config, "sees_future") and config.sees_future(shortest)),
        f"model: expected a mask that hides tokens after the {shortest} that are read at once, as those do not exist "
        f"yet when text is generated, got {getattr(config, 'mask', None)!r}. Join it with a causal one: "
        "masks.causal() & mask.",
    )


def _check_chunk(prompts: Prompts, config: Any, chunk: Any) -> None:
    """Refuse pieces of a prompt whose rotary frequencies would be those of the pieces' lengths, not of the prompt's."""
    longest = prompts.tokens.shape[-1]
    if chunk is None or getattr(config, "position", None) != "rotary":
        return
    for rope in (getattr(config, "rope", None), getattr(config, "local_rope", None)):
        scaling = getattr(rope, "scaling", None)
        fail_unless(
            scaling is None or not scaling.needs_length or longest <= scaling.original_length,
            f"chunk: expected None for a prompt of {longest} tokens, as rotary frequencies change with length under "
            f"{scaling!r}, got {chunk}. Read it at once.",
        )


def _check_min_new_tokens(sampler: Sampler, stop: np.ndarray, max_new_tokens: int) -> None:
    for transform in sampler.transforms:
        if not isinstance(transform, MinNewTokens):
            continue
        fail_unless(
            bool(np.any(stop != NO_TOKEN)),
            "min_new_tokens: expected stop_tokens with it, as it only holds them back, got none. Pass stop_tokens=, or "
            "leave min_new_tokens out.",
        )
        fail_unless(
            not isinstance(transform.count, int) or transform.count <= max_new_tokens,
            f"min_new_tokens: expected at most max_new_tokens = {max_new_tokens}, got {transform.count}.",
        )


def _check_rng(rng: Any, sampler: Sampler, num_samples: int | None) -> jax.Array | None:
    if num_samples is not None:
        check_int("num_samples", num_samples, 1, "It is the number of continuations of each prompt.")
    if sampler.greedy:
        fail_unless(
            rng is None,
            "rng: expected None, as greedy() draws nothing, got a key. Leave it out, or pass a sampler such as "
            "sampler(temperature(0.8)).",
        )
        fail_unless(
            num_samples is None,
            f"num_samples: expected None, as greedy() gives the same tokens each time, got {num_samples}. Pass a "
            "sampler such as sampler(temperature(0.8)).",
        )
        return None
    fail_unless(
        rng is not None,
        f"rng: expected a JAX random key to draw tokens by {sampler!r}, got None. Pass rng=jax.random.key(0), or leave "
        "sampler out for greedy().",
    )
    fail_unless(
        isinstance(rng, jax.Array),
        f"rng: expected a JAX random key, got {rng!r}. Make one: jax.random.key(0).",
        TypeError,
    )
    # A legacy key of jax.random.PRNGKey is an array of bits, with an axis that is no batch dimension.
    if jnp.issubdtype(rng.dtype, jnp.uint32):
        rng = jax.random.wrap_key_data(rng)
    fail_unless(
        rng.ndim == 0,
        f"rng: expected one key, got {describe_array(rng)}. Each row derives a key from it; for several samples use "
        "num_samples=.",
    )
    return rng


def _check_streaming(strings: tuple[str, ...], tokenizer: Any, stream: Any, segment: Any) -> None:
    for stop in strings:
        fail_unless(
            isinstance(stop, str) and stop != "",
            f"stop_strings: expected non-empty strings, got {stop!r}. Stop tokens go into stop_tokens=.",
            TypeError,
        )
    fail_unless(
        not strings or tokenizer is not None,
        "tokenizer: expected an object with decode(ids) -> str to find stop_strings in the text, got None.",
    )
    fail_unless(
        tokenizer is None or callable(getattr(tokenizer, "decode", None)),
        f"tokenizer: expected an object with decode(ids) -> str, got {type(tokenizer).__name__}.",
        TypeError,
    )
    fail_unless(
        stream is None or callable(stream),
        f"stream: expected a function that takes a StreamChunk, got {describe_array(stream)}.",
        TypeError,
    )
    if segment is not None:
        check_int("segment", segment, 1, "It is the number of tokens between two looks at the text.")
        fail_unless(
            bool(strings) or stream is not None,
            f"segment: expected None without stream or stop_strings, got {segment}. Leave it out.",
        )


def _check_skip(skip_special_tokens: Any, tokenizer: Any) -> None:
    fail_unless(
        isinstance(skip_special_tokens, bool),
        f"skip_special_tokens: expected True or False, got {describe_array(skip_special_tokens)}.",
        TypeError,
    )
    if not skip_special_tokens:
        return
    fail_unless(
        tokenizer is not None,
        "skip_special_tokens: expected False without a tokenizer, as no text is decoded, got True. Leave it out.",
    )
    parameters = inspect.signature(tokenizer.decode).parameters.values()
    fail_unless(
        any(p.name == "skip_special_tokens" or p.kind is p.VAR_KEYWORD for p in parameters),
        "tokenizer: expected decode(ids, skip_special_tokens=True) to leave special tokens out, got "
        f"{type(tokenizer).__name__}, whose decode does not take it. Drop them in its decode.",
        TypeError,
    )


def _as_stop_array(stop_tokens: int | Sequence[int], vocab_size: int) -> np.ndarray:
    tokens = [stop_tokens] if isinstance(stop_tokens, (int, np.integer)) else list(stop_tokens)
    for token in tokens:
        check_int("stop_tokens", token, 0, "They are token ids; strings go into stop_strings=.")
        fail_unless(
            token < vocab_size,
            f"stop_tokens: expected token ids below {vocab_size}, the vocabulary of the model, got {token}.",
        )
    # A power of two of slots: another number of stop tokens is then rarely another shape, and so another program.
    size = max(MIN_STOP_SLOTS, 1 << (len(tokens) - 1).bit_length()) if tokens else MIN_STOP_SLOTS
    return np.array([*tokens, *[NO_TOKEN] * (size - len(tokens))], np.int32)
