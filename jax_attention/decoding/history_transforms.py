"""Logit transforms that read the history: against repetition, and for a minimal length.

They equal the classes of the same name in Hugging Face transformers, but padding never counts as a token of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.struct import array_field, struct
from jax_attention.decoding.history import History, mark_tokens, read_field
from jax_attention.decoding.logit_transforms import LogitTransform, check_count, check_number, per_row

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@struct
class RepetitionPenalty(LogitTransform):
    """Logits of seen tokens, divided if positive and multiplied if negative; see `repetition_penalty`."""

    penalty: jax.Array | float = array_field()

    order, sampling_only, needs_seen = 0, False, True

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        seen, penalty = read_field(history, "seen"), per_row(self.penalty)
        return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


@struct
class NoRepeatNgramSize(LogitTransform):
    """-inf for tokens that would repeat an n-gram of the row; see `no_repeat_ngram_size`."""

    size: jax.Array | int = array_field()

    order, sampling_only = 1, False

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        tokens, lengths = read_field(history, "tokens"), read_field(history, "lengths")[..., None]
        size = jnp.broadcast_to(per_row(jnp.asarray(self.size, jnp.int32)), lengths.shape)
        columns = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, tokens.ndim - 1)

        def compare(distance: jax.Array, ends: jax.Array) -> jax.Array:
            last = jnp.take_along_axis(tokens, jnp.maximum(lengths - distance, 0), axis=-1)
            before = jnp.roll(tokens, distance, axis=-1)
            return ends & ((before == last) | (distance >= size))

        # Columns where an n-gram ends whose first n - 1 tokens are the last n - 1 tokens of the row.
        ends = (columns >= size - 1) & (columns < lengths)
        longest = jnp.minimum(jnp.max(size), tokens.shape[-1])
        ends = jax.lax.fori_loop(1, longest, compare, ends)
        return jnp.where(mark_tokens(tokens, ends, logits.shape[-1]), -jnp.inf, logits)


@struct
class MinNewTokens(LogitTransform):
    """-inf for stop tokens as long as there are fewer new tokens; see `min_new_tokens`."""

    count: jax.Array | int = array_field()

    order, sampling_only = 2, False

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        step, stop_tokens = read_field(history, "step"), read_field(history, "stop_tokens")
        is_stop = mark_tokens(stop_tokens, stop_tokens >= 0, logits.shape[-1])
        is_stop = is_stop.reshape((1,) * (logits.ndim - 1) + is_stop.shape)
        return jnp.where(is_stop & (step < per_row(self.count)), -jnp.inf, logits)


def repetition_penalty(penalty: Float[Array, "*batch"] | float) -> RepetitionPenalty:
    """Make tokens less likely that the row already contains, prompt included.

        logit' = logit / penalty  if logit > 0  else  logit * penalty          for seen tokens

    Args:
        penalty: a positive number, or an array `[...]` with one per row. 1 changes nothing, 1.2 is usual, below 1
            invites repetition.

    Returns:
        A logit transform for `sampler`; another number does not recompile. A direct call needs `History(seen=)`, bool
        `[..., V]`.

    Raises:
        ValueError: if it is a number and not positive (arrays may be traced, so their entries are not checked).
        TypeError: if it is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> history = decoding.History(seen=jnp.array([True, True, False]))
        >>> decoding.repetition_penalty(2.0)(jnp.array([4.0, -4.0, 4.0]), history)
        Array([ 2., -8.,  4.], dtype=float32)

    Reference:
        Keskar et al. (2019), "CTRL: a conditional transformer language model for controllable generation", section
        4.1. Hugging Face counts the padding of a batch as seen; here padding is never seen.
    """
    cure = "1.0 changes nothing; leave the penalty out to switch it off."
    return RepetitionPenalty(check_number("penalty", penalty, lambda p: p > 0, "a positive number", cure))


def no_repeat_ngram_size(size: Int[Array, "*batch"] | int) -> NoRepeatNgramSize:
    """Forbid tokens that would make a sequence of n tokens occur twice in a row, prompt included.

        logit' = -inf  if (the last n - 1 tokens, this token) is among the n-grams of the row  else  logit

    Args:
        size: n, at least 1, or an integer array `[...]` with one per row. 1 forbids every token of the row.

    Returns:
        A logit transform for `sampler`; another n does not recompile. A direct call needs `History(tokens=, lengths=)`.

    Raises:
        ValueError: if it is smaller than 1 (arrays may be traced, so their entries are not checked).
        TypeError: if it is not an integer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> history = decoding.History(tokens=jnp.array([1, 2, 3, 1, -1]), lengths=jnp.array(4))
        >>> decoding.no_repeat_ngram_size(2)(jnp.zeros(4), history)
        Array([  0.,   0., -inf,   0.], dtype=float32)

    Reference:
        Paulus, Xiong, Socher (2018), "A deep reinforced model for abstractive summarization", section 2.5. Hugging Face
        counts the padding of a batch among the n-grams; here it is not.
    """
    return NoRepeatNgramSize(check_count("size", size, "Leave no_repeat_ngram_size out to allow repetitions."))


def min_new_tokens(count: Int[Array, "*batch"] | int) -> MinNewTokens:
    """Forbid the stop tokens until a row has `count` new tokens.

        logit' = -inf  if the token is a stop token and there are fewer than `count` new tokens  else  logit

    Stop strings are not held back. The stop tokens are those of the call, so `generate` and `beam_search` refuse it
    without any.

    Args:
        count: at least 1, or an integer array `[...]` with one per row.

    Returns:
        A logit transform for `sampler`; another count does not recompile. A direct call needs `History(step=,
        stop_tokens=)`.

    Raises:
        ValueError: if it is smaller than 1 (arrays may be traced, so their entries are not checked).
        TypeError: if it is not an integer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> for step in (2, 3):
        ...     history = decoding.History(step=jnp.array(step), stop_tokens=jnp.array([1]))
        ...     print(decoding.min_new_tokens(3)(jnp.zeros(3), history))
        [  0. -inf   0.]
        [0. 0. 0.]

    Reference:
        https://github.com/huggingface/transformers/issues/20814: a minimum that does not count the prompt.
    """
    return MinNewTokens(check_count("count", count, "Leave min_new_tokens out to let a row stop at once."))
