"""Beam search: the likeliest continuations that looking at several at once can find."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.decoding.checks import check_request
from jax_attention.decoding.prompts import Prompts
from jax_attention.decoding.rules import Greedy, LogitTransform, greedy
from jax_attention.decoding.sampler import sampler
from jax_attention.decoding.search import StoppingCriteria, search, start
from jax_attention.decoding.text import TextStreamers

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


MOST_DIGITS = 30
"""Digits of the largest number that a score is divided by."""


class Beams(NamedTuple):
    """What `beam_search` returns; `lead` are the prompt's leading axes, after one for `num_return` if asked for."""

    tokens: Int[Array, "*lead T"]
    """The new tokens, T = max_new_tokens, best beam first; 0 behind the last one of a beam."""
    lengths: Int[Array, "*lead"]
    """How many of them count, the stop token included; 0 where there are fewer sequences than asked for."""
    scores: Float[Array, "*lead"]
    """(sum of log-probabilities) / length^length_penalty; -inf where there is no sequence."""
    stopped: Bool[Array, "*lead"]
    """Whether the beam ended by a stop token, not by the limit."""
    text: str | list | None
    """With a tokenizer: the new text, without stop token; a list (of lists) for a batch."""


def beam_search(
    model: Any,
    prompt: Prompts | Int[Array, "*lead T"] | Sequence[int] | Sequence[Sequence[int]],
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    num_return: int | None = None,
    rules: LogitTransform | Callable | Sequence[LogitTransform | Callable] = (),
    stop_tokens: int | Sequence[int] = (),
    tokenizer: Any = None,
    chunk: int | None = None,
    beyond_context: bool = False,
) -> Beams:
    """Continue a prompt by the sequence of highest score that K beams, lengthened token by token, come upon.

        sums [K, V] = sum of each beam + log softmax(its logits);        length n, the same for all
        finish:  of the K largest those whose token is a stop token, or all at the limit;  score = sum / n^penalty
        go on:   the K largest whose token is no stop token
        keep:    the K finished beams of highest score, until  sum of the best running beam / n^penalty  is not better

    The same tokens and scores as `transformers.generate(num_beams=)`. Two compiled programs, as in `generate`; the
    prompt is read once, and rows of a batch depend neither on each other nor on padding.

    Args:
        model: as for `generate`. Its cache is held K times.
        prompt: as for `generate`.
        num_beams: K; 1 is greedy decoding.
        max_new_tokens: the most tokens to add to each row.
        length_penalty: above 0 favours long beams (sums are negative), below 0 short ones; 0 compares bare sums.
        early_stopping: when a row that has K finished beams is done. False: once the best running beam would not be
            better if it ended now. True: at once. "never": once it could not be better at any length; the only exact
            one for a positive penalty, and the slowest.
        num_return: return so many of the K beams, best first; adds a leading axis. None is the best without the axis.
        rules: `repetition_penalty` and functions `f(logprobs, seen) -> logprobs`, applied to log-probabilities, which
            are not normalised again; they count in the scores.
        stop_tokens: a beam ends after any of these.
        tokenizer: has `decode(ids) -> str`; for `text`.
        chunk: read the prompt in parts of so many tokens; None is all at once.
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
        Wu et al. (2016), "Google's neural machine translation system", section 7; lengths are those of new tokens.
    """
    beams = check_int("num_beams", num_beams, 1, "1 is greedy decoding.")
    returned = _check_return(num_return, beams)
    penalty = _check_penalty(length_penalty, max_new_tokens)
    fail_unless(
        isinstance(early_stopping, (bool, np.bool_)) or (isinstance(early_stopping, str) and early_stopping == "never"),
        f'early_stopping: expected False, True or "never", got {early_stopping!r}.',
    )
    rules = rules if isinstance(rules, (tuple, list)) else (rules,)
    chance = [rule for rule in rules if isinstance(rule, LogitTransform) and (rule.random or isinstance(rule, Greedy))]
    fail_unless(
        not chance,
        f"rules: expected rules that change log-probabilities, as beam search draws nothing and keeps the best, got "
        f"{chance}. Leave them out, or draw by generate(..., sampler=).",
    )
    request = check_request(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        sampler=sampler(greedy(), *rules),
        rng=None,
        num_samples=None,
        stop_tokens=stop_tokens,
        stop_strings=(),
        tokenizer=tokenizer,
        stream=None,
        segment=None,
        chunk=chunk,
        beyond_context=beyond_context,
    )
    if getattr(model.config, "scan", False):
        model = models.unroll_layers(model)
    patient = early_stopping == "never" and penalty > 0
    goal = StoppingCriteria(
        stop=request.stop,
        limit=request.limit,
        penalty=penalty,
        horizon=request.limit if patient else np.int32(0),
        first_best=np.bool_(early_stopping != "never" and early_stopping),
    )
    prompts, sizes = request.sized()
    state = start(model, prompts, request.sampler, goal, beams=beams, **sizes)
    found = search(model, state, request.sampler, goal, capacity=sizes["capacity"]).finished
    found = jax.tree.map(lambda x: x[returned], found)
    last = jnp.take_along_axis(found.tokens, jnp.maximum(found.lengths - 1, 0)[..., None], axis=-1)
    stopped = jnp.any(last == goal.stop, axis=-1) & (found.lengths > 0)
    text = None if tokenizer is None else _texts(tokenizer, *map(np.array, (found.tokens, found.lengths, stopped)))
    return Beams(found.tokens[..., :max_new_tokens], found.lengths, found.scores, stopped, text)


def _check_return(num_return: Any, beams: int) -> int | slice:
    """Which of the beams to return."""
    if num_return is None:
        return 0
    count = check_int("num_return", num_return, 1, "Leave it out for the best beam alone.")
    fail_unless(count <= beams, f"num_return: expected at most num_beams = {beams}, got {count}. Raise num_beams.")
    return slice(count)


def _check_penalty(penalty: Any, longest: Any) -> np.float32:
    """A known number: which beams can still win depends on its sign."""
    real = isinstance(penalty, (int, float, np.number)) and not isinstance(penalty, bool)
    fail_unless(real, f"length_penalty: expected a real number, got {describe_array(penalty)}.", TypeError)
    fail_unless(math.isfinite(penalty), f"length_penalty: expected a finite number, got {penalty}. 0 is no penalty.")
    most = MOST_DIGITS / math.log10(longest) if isinstance(longest, int) and longest > 1 else math.inf
    fail_unless(
        abs(penalty) <= most,
        f"length_penalty: expected at most {most:.4g} in size, as {longest}^penalty is a float32, got {penalty}.",
    )
    return np.float32(penalty)


def _texts(tokenizer: Any, tokens: np.ndarray, lengths: np.ndarray, stopped: np.ndarray) -> Any:
    rows = TextStreamers(lengths.shape, tokenizer.decode, ())
    for _ in rows.follow(tokens, lengths, stopped, last=True):
        pass
    return rows.texts(lengths.shape)
