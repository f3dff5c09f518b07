"""What `generate` checks before any work starts, and the checked request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.buckets import bucket
from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.decoding.prompts import Prompts, as_prompts, fill_up
from jax_attention.decoding.sampler import Sampler, as_sampler
from jax_attention.models.protocols import LanguageModel, Seq2Seq

SEGMENT = 8
FEWEST_STOPS = 4
NO_TOKEN = -1


class Request(NamedTuple):
    """The arguments of `generate`, checked and in one form."""

    prompts: Prompts
    max_new_tokens: int
    sampler: Sampler
    rng: jax.Array | None
    num_samples: int | None
    stop: np.ndarray
    """Stop tokens, int32, filled up by -1 so that another number of them rarely recompiles."""
    stop_strings: tuple[str, ...]
    tokenizer: Any
    stream: Callable | None
    segment: int
    chunk: int | None

    @property
    def limit(self) -> np.int32:
        """How many tokens to choose at most."""
        return np.int32(self.max_new_tokens)

    @property
    def watched(self) -> bool:
        """Whether the host looks at the tokens."""
        return self.stream is not None or bool(self.stop_strings) or self.tokenizer is not None

    def sized(self) -> tuple[Prompts, dict[str, int | None]]:
        """The prompts filled up to a bucket, and the sizes for which programs are compiled."""
        length = bucket(self.prompts.tokens.shape[-1])
        chunk = None if self.chunk is None or self.chunk >= length else self.chunk
        if chunk is not None:
            length = -(-length // chunk) * chunk
        capacity, room = bucket(length + self.max_new_tokens), bucket(self.max_new_tokens)
        return fill_up(self.prompts, length), {"capacity": capacity, "room": room, "chunk": chunk}


def check_request(model: Any, prompt: Any, *, beyond_context: bool, **given: Any) -> Request:
    """All arguments of `generate`, or an error that names the one to change."""
    _check_model(model)
    count = check_int("max_new_tokens", given["max_new_tokens"], 1, "It is the most tokens to add.")
    prompts = _on_host(as_prompts(prompt))
    _check_tokens(prompts, model.config.vocab_size)
    _check_context(prompts, count, model.config, beyond_context)
    _check_mask(prompts, model.config, given["chunk"])
    sampler = as_sampler(given["sampler"])
    rng = _check_rng(given["rng"], sampler, given["num_samples"])
    strings = given["stop_strings"]
    strings = (strings,) if isinstance(strings, str) else tuple(strings)
    _check_watching(strings, given["tokenizer"], given["stream"], given["segment"])
    chunk = given["chunk"]
    request = Request(
        prompts=prompts,
        max_new_tokens=count,
        sampler=sampler,
        rng=rng,
        num_samples=given["num_samples"],
        stop=_stop_array(given["stop_tokens"], model.config.vocab_size),
        stop_strings=strings,
        tokenizer=given["tokenizer"],
        stream=given["stream"],
        segment=SEGMENT if given["segment"] is None else given["segment"],
        chunk=None if chunk is None else check_int("chunk", chunk, 1, "It is the number of tokens read at once."),
    )
    traced = [name for name, x in (("prompt", prompts.tokens), ("rng", rng)) if isinstance(x, jax.core.Tracer)]
    fail_unless(
        not (traced and request.watched),
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
    """Known arrays as NumPy: padding them then compiles nothing."""
    return Prompts(*(x if isinstance(x, jax.core.Tracer) else np.asarray(x) for x in prompts))


def _check_tokens(prompts: Prompts, vocab_size: int) -> None:
    if isinstance(prompts.tokens, jax.core.Tracer):
        return
    wrong = prompts.tokens[(prompts.tokens < 0) | (prompts.tokens >= vocab_size)]
    if wrong.size:
        raise ValueError(
            f"prompt: expected token ids from 0 to {vocab_size - 1}, the vocabulary of the model, got {wrong[0]}. "
            "Encode the text with the tokenizer that the model was trained with."
        )


def _check_context(prompts: Prompts, count: int, config: Any, beyond: bool) -> None:
    """The last new token is chosen, not read, but whoever goes on from here will read it: it counts.

    The context of a recurrent model is that of its source; what it writes has no end.
    """
    if getattr(config, "endless", False):
        return
    learned = getattr(config, "position", None) == "learned"
    fail_unless(
        not (beyond and learned),
        f"beyond_context: expected False for learned positions, whose table ends at context = {config.context}, got "
        "True. Leave it out.",
    )
    longest = prompts.tokens.shape[-1]
    if not isinstance(prompts.lengths, jax.core.Tracer):
        longest = int(np.max(prompts.lengths))
    if beyond or longest + count <= config.context:
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
    """A prompt that is read at once may be seen whole, as by a prefix mask; what is not there yet may not."""
    known = not isinstance(prompts.lengths, jax.core.Tracer)
    shortest = int(np.min(prompts.lengths)) if known and chunk is None else 0
    fail_unless(
        not (hasattr(config, "sees_future") and config.sees_future(shortest)),
        f"model: expected a mask that hides tokens behind the {shortest} that are read at once, as those are not there "
        f"yet when text is generated, got {getattr(config, 'mask', None)!r}. Join it with a causal one: "
        "masks.causal() & mask.",
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
    if jnp.issubdtype(rng.dtype, jnp.uint32):
        rng = jax.random.wrap_key_data(rng)
    fail_unless(
        rng.ndim == 0,
        f"rng: expected one key, got {describe_array(rng)}. Rows get their own by themselves; for several samples use "
        "num_samples=.",
    )
    return rng


def _check_watching(strings: tuple[str, ...], tokenizer: Any, stream: Any, segment: Any) -> None:
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
        check_int("segment", segment, 1, "It is the number of tokens between two looks.")
        fail_unless(
            bool(strings) or stream is not None,
            f"segment: expected None without stream or stop_strings, which it is for, got {segment}. Leave it out.",
        )


def _stop_array(stop_tokens: int | Sequence[int], vocab_size: int) -> np.ndarray:
    tokens = [stop_tokens] if isinstance(stop_tokens, (int, np.integer)) else list(stop_tokens)
    for token in tokens:
        check_int("stop_tokens", token, 0, "They are token ids; strings go into stop_strings=.")
        fail_unless(
            token < vocab_size,
            f"stop_tokens: expected token ids below {vocab_size}, the vocabulary of the model, got {token}.",
        )
    size = max(FEWEST_STOPS, 1 << (len(tokens) - 1).bit_length()) if tokens else FEWEST_STOPS
    return np.array([*tokens, *[NO_TOKEN] * (size - len(tokens))], np.int32)
