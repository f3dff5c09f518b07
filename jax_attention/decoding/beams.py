"""Beam search: keep the K likeliest continuations of a prompt at every step, and return the best finished ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.decoding.checks import Request, check_request
from jax_attention.decoding.logit_transforms import Greedy, LogitTransform, greedy
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.sampler import sampler
from jax_attention.decoding.search import StoppingCriteria, search, start
from jax_attention.decoding.text_streaming import TextStreamers

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


MAX_DIGITS = 30
"""Decimal digits of the largest divisor of a score, length^penalty: float32 ends at 3e38, and a divisor of infinity
would turn every score into 0.
"""


@short_repr
class Beams(NamedTuple):
    """Result of `beam_search`. `batch` is the prompt's batch shape, after an axis for `num_return` if it is given."""

    tokens: Int[Array, "*batch T"]
    """The new tokens, T = max_new_tokens, best beam first; positions after the last token of a beam are 0."""
    lengths: Int[Array, "*batch"]
    """Number of new tokens, the stop token included; 0 where fewer than `num_return` sequences exist."""
    scores: Float[Array, "*batch"]
    """(sum of log-probabilities) / length^length_penalty; -inf where there is no sequence."""
    stopped: Bool[Array, "*batch"]
    """Whether the beam ended by a stop token, not by the limit."""
    text: str | list | None
    """With a tokenizer: what the new tokens add to the text of the prompt, without stop token; a list (of lists) for a
    batch.
    """


def beam_search(
    model: Any,
    prompt: Prompts | Int[Array, "*batch T"] | Sequence[int] | Sequence[Sequence[int]],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    num_return: int | None = None,
    transforms: LogitTransform | Callable | Sequence[LogitTransform | Callable] = (),
    stop_tokens: int | Sequence[int] = (),
    tokenizer: Any = None,
    skip_special_tokens: bool = False,
    chunk: int | None = None,
    beyond_context: bool = False,
) -> Beams:
    """Search for the continuation of highest score by lengthening the K best ones token by token.

        sums [K, V] = sum of each beam + log softmax(its logits);        length n, the same for all
        finish:  of the K largest those whose token is a stop token, or all at the limit;  score = sum / n^penalty
        go on:   the K largest whose token is no stop token
        keep:    the K finished beams of highest score, until  sum of the best running beam / n^penalty  is not better

    Tokens and scores are those of `transformers.generate(num_beams=)`. As in `generate` there are two compiled
    programs, the prompt is read once, and rows of a batch depend neither on each other nor on padding.

    Args:
        model: as for `generate`. K copies of its cache are kept.
        prompt: as for `generate`.
        num_beams: K; 1 is greedy decoding.
        max_new_tokens: the most tokens to add to each row.
        length_penalty: above 0 favours long beams (sums are negative), below 0 short ones; 0 compares bare sums.
        early_stopping: when a row with K finished beams is done. False: as soon as the best running beam would not be
            better if it ended now. True: at once. "never": as soon as it cannot be better at any length, which is the
            only exact choice for a positive penalty, and the slowest.
        num_return: the number of beams to return, best first, on a new leading axis. None is the best without the axis.
        transforms: `repetition_penalty`, `no_repeat_ngram_size`, `min_new_tokens` and functions `f(logprobs, history)
            -> logprobs`, applied to log-probabilities. The results are not normalised again, and count in the scores.
        stop_tokens: a beam ends after any of these.
        tokenizer: has `decode(ids) -> str`; for `text`.
        skip_special_tokens: leave special tokens out of the text, by `decode(ids, skip_special_tokens=True)`.
        chunk: read the prompt in pieces of this many tokens; None reads it at once.
        beyond_context: let prompt and new tokens exceed the model's context; not with learned positions.

    Returns:
        `Beams(tokens, lengths, scores, stopped, text)`.

    Raises:
        ValueError: as `generate`, and if a number of beams or the penalty is out of range.
        TypeError: if an argument has the wrong type.

    Example:
        >>> from jax_attention import decoding, models
        >>> model = models.create(models.tiny(vocab_size=11, depth=1, width=16))
        >>> out = decoding.beam_search(model, [[1, 2, 3], [4]], num_beams=4, max_new_tokens=5, num_return=2)
        >>> out.tokens.shape, out.scores.shape, bool((out.scores[0] >= out.scores[1]).all())
        ((2, 2, 5), (2, 2), True)

    Reference:
        Wu et al. (2016), "Google's neural machine translation system", section 7. Lengths count new tokens only.
    """
    beams = check_int("num_beams", num_beams, 1, "1 is greedy decoding.")
    returned = _returned_beams(num_return, beams)
    penalty = _check_penalty(length_penalty, max_new_tokens)
    fail_unless(
        isinstance(early_stopping, (bool, np.bool_)) or (isinstance(early_stopping, str) and early_stopping == "never"),
        f'early_stopping: expected False, True or "never", got {early_stopping!r}.',
    )
    transforms = transforms if isinstance(transforms, (tuple, list)) else (transforms,)
    useless = [t for t in transforms if isinstance(t, LogitTransform) and (t.sampling_only or isinstance(t, Greedy))]
    fail_unless(
        not useless,
        "transforms: expected logit transforms that change log-probabilities, as beam search draws nothing and keeps "
        f"the best, got {useless}. Leave them out, or draw by generate(..., sampler=).",
    )
    request = check_request(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        sampler=sampler(greedy(), *transforms),
        rng=None,
        num_samples=None,
        stop_tokens=stop_tokens,
        stop_strings=(),
        tokenizer=tokenizer,
        skip_special_tokens=skip_special_tokens,
        stream=None,
        segment=None,
        chunk=chunk,
        beyond_context=beyond_context,
    )
    if getattr(model.config, "scan", False):
        model = models.unroll_layers(model)
    # A negative sum divided by n^penalty rises with n for a positive penalty: with "never" a running beam is compared
    # as if it were as long as the limit. For a penalty of 0 or less it is best at its present length.
    best_at_limit = early_stopping == "never" and penalty > 0
    criteria = StoppingCriteria(
        stop=request.stop,
        limit=request.limit,
        penalty=penalty,
        min_length=request.limit if best_at_limit else np.int32(0),
        stop_when_full=np.bool_(early_stopping != "never" and early_stopping),
    )
    prompts, sizes = request.bucketed()
    state = start(model, prompts, request.sampler, criteria, beams=beams, **sizes)
    finished = search(model, state, request.sampler, criteria, capacity=sizes["capacity"]).finished
    finished = jax.tree.map(lambda x: x[returned], finished)
    last = jnp.take_along_axis(finished.tokens, jnp.maximum(finished.lengths - 1, 0)[..., None], axis=-1)
    stopped = jnp.isin(last[..., 0], criteria.stop) & (finished.lengths > 0)
    text = None
    if tokenizer is not None:
        text = _decode_texts(request, *map(np.array, (finished.tokens, finished.lengths, stopped)))
    return Beams(finished.tokens[..., :max_new_tokens], finished.lengths, finished.scores, stopped, text)


def _returned_beams(num_return: Any, beams: int) -> int | slice:
    """Index of the returned beams on the axis of beams."""
    if num_return is None:
        return 0
    count = check_int("num_return", num_return, 1, "Leave it out for the best beam alone.")
    fail_unless(count <= beams, f"num_return: expected at most num_beams = {beams}, got {count}. Raise num_beams.")
    return slice(count)


def _check_penalty(penalty: Any, max_length: Any) -> np.float32:
    """The penalty as float32. It may not be traced: its sign decides which beams can still win."""
    is_real = isinstance(penalty, (int, float, np.number)) and not isinstance(penalty, bool)
    fail_unless(is_real, f"length_penalty: expected a real number, got {describe_array(penalty)}.", TypeError)
    fail_unless(math.isfinite(penalty), f"length_penalty: expected a finite number, got {penalty}. 0 is no penalty.")
    is_long = isinstance(max_length, int) and max_length > 1
    max_penalty = MAX_DIGITS / math.log10(max_length) if is_long else math.inf
    fail_unless(
        abs(penalty) <= max_penalty,
        f"length_penalty: expected at most {max_penalty:.4g} in size, as {max_length}^penalty is a float32, got "
        f"{penalty}.",
    )
    return np.float32(penalty)


def _decode_texts(request: Request, tokens: np.ndarray, lengths: np.ndarray, stopped: np.ndarray) -> Any:
    """The texts of all beams, nested as the batch dimensions are."""
    streamers = TextStreamers(lengths.shape, request.continuations(lengths.shape))
    for _ in streamers.update(tokens, lengths, stopped, last=True):
        pass
    return streamers.texts(lengths.shape)
