"""The tokens of each row so far, as logit transforms read them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.struct import data_field, struct
from jax_attention.decoding.prompts import Prompts

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int

NO_TOKEN = -1
"""Padding of arrays of tokens where 0 would be a token; no id equals it."""


@struct
class History:
    """Second argument of a logit transform: the tokens of each row so far, prompt included.

        tokens[..., :lengths] = prompt, new tokens;        tokens[..., lengths:] = -1

    `generate` and `beam_search` fill all fields but `seen`, which they keep only if a transform reads it: plain
    functions and transforms with `needs_seen`. For a direct call make one with the fields that the transform reads.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> history = decoding.History(step=jnp.array(1), stop_tokens=jnp.array([2]))
        >>> decoding.min_new_tokens(3)(jnp.zeros(4), history)
        Array([  0.,   0., -inf,   0.], dtype=float32)
    """

    tokens: Int[Array, "*batch C"] | None = data_field(default=None)
    """Token ids without padding in front, -1 after the last token."""
    lengths: Int[Array, "*batch"] | None = data_field(default=None)
    """Number of tokens of each row."""
    step: Int[Array, ""] | None = data_field(default=None)
    """Number of new tokens so far, the same for all rows: 0 when the first one is chosen."""
    stop_tokens: Int[Array, "S"] | None = data_field(default=None)
    """The stop tokens of the call, then -1."""
    seen: Bool[Array, "*batch V"] | None = data_field(default=None)
    """Which tokens of the vocabulary the row contains."""

    def append(self, token: Int[Array, "*batch"]) -> History:
        """The history with one more token in each row."""
        columns = jax.lax.broadcasted_iota(jnp.int32, self.tokens.shape, self.tokens.ndim - 1)
        seen = self.seen
        if seen is not None:
            seen = seen | (jax.lax.broadcasted_iota(jnp.int32, seen.shape, seen.ndim - 1) == token[..., None])
        return dataclasses.replace(
            self,
            tokens=jnp.where(columns == self.lengths[..., None], token[..., None], self.tokens),
            lengths=self.lengths + 1,
            step=self.step + 1,
            seen=seen,
        )

    def map_rows(self, change: Callable[[jax.Array], jax.Array]) -> History:
        """Apply `change` to the arrays that have rows."""
        tokens, lengths, seen = jax.tree.map(change, (self.tokens, self.lengths, self.seen))
        return dataclasses.replace(self, tokens=tokens, lengths=lengths, seen=seen)


def start_history(prompts: Prompts, stop_tokens: jax.Array, capacity: int, seen_size: int | None) -> History:
    """The history of the prompts before the first new token, with room for `capacity` tokens of a row.

    `seen_size` is the size of the vocabulary, or None to leave `seen` out.
    """
    tokens = prompts.tokens.reshape(-1, prompts.tokens.shape[-1])
    # Positions count the tokens of a row. Those of padding are beyond the capacity, where `mode="drop"` ignores them.
    columns = prompts.positions.reshape(tokens.shape)
    rows = jnp.arange(tokens.shape[0])[:, None]
    tokens = jnp.full((tokens.shape[0], capacity), NO_TOKEN, tokens.dtype).at[rows, columns].set(tokens, mode="drop")
    tokens = tokens.reshape(*prompts.lengths.shape, capacity).astype(jnp.int32)
    return History(
        tokens=tokens,
        lengths=jnp.asarray(prompts.lengths, jnp.int32),
        step=jnp.zeros((), jnp.int32),
        stop_tokens=jnp.asarray(stop_tokens),
        seen=None if seen_size is None else mark_tokens(tokens, tokens != NO_TOKEN, seen_size),
    )


def mark_tokens(
    tokens: Int[Array, "*batch C"], counted: Bool[Array, "*batch C"], vocab_size: int
) -> Bool[Array, "*batch V"]:
    """Which tokens of the vocabulary are among the `counted` ones of each row."""
    batch_shape = tokens.shape[:-1]
    # Other entries go to the index V, which `mode="drop"` ignores.
    columns = jnp.where(counted, tokens, vocab_size).reshape(-1, tokens.shape[-1])
    marks = jnp.zeros((math.prod(batch_shape), vocab_size), bool)
    marks = marks.at[jnp.arange(marks.shape[0])[:, None], columns].set(True, mode="drop")
    return marks.reshape(*batch_shape, vocab_size)


def read_field(history: Any, name: str) -> jax.Array:
    """A field of the history that a logit transform cannot do without."""
    fail_unless(
        history is None or isinstance(history, History),
        f"history: expected decoding.History({name}=...), got {describe_array(history)}.",
        TypeError,
    )
    x = getattr(history, name, None)
    fail_unless(
        x is not None,
        f"history: expected decoding.History({name}=...), got {'None' if history is None else f'{name}=None'}. "
        "generate and beam_search pass it.",
        TypeError,
    )
    return x
