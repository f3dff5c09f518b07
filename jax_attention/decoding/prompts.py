"""Prompts as arrays: ragged lists padded on either side, and buckets so that few lengths are compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.core.checks import check_int, describe_array, fail_unless

if TYPE_CHECKING:
    from jaxtyping import Array, Int


class Prompts(NamedTuple):
    """Tokens with padding, and what tells them apart; made by `pad_prompts`."""

    tokens: Int[Array, "*lead T"]
    """int32, padding included."""
    positions: Int[Array, "*lead T"]
    """0, 1, 2, … along the tokens of a row; `cache.EMPTY` at padding, so that nobody attends to it."""
    lengths: Int[Array, "*lead"]
    """How many tokens of each row are not padding."""


def pad_prompts(prompts: Sequence[Sequence[int]], *, side: str = "left", pad: int = 0) -> Prompts:
    """Bring prompts of different lengths into one array.

        left:   [[5, 6, 7], [8]]  ->  tokens [[5, 6, 7], [pad, pad, 8]],  positions [[0, 1, 2], [EMPTY, EMPTY, 0]]
        right:  [[5, 6, 7], [8]]  ->  tokens [[5, 6, 7], [8, pad, pad]],  positions [[0, 1, 2], [0, EMPTY, EMPTY]]

    Args:
        prompts: one sequence of token ids per row.
        side: "left" or "right", where the padding goes. `generate` gives the same tokens for both.
        pad: the token id that stands at padding; nobody attends to it.

    Returns:
        `Prompts` of NumPy arrays, ready for `generate`.

    Raises:
        ValueError: if there is no prompt, one is empty, or `side` is something else.
        TypeError: if a prompt is not a sequence of integers.

    Example:
        >>> from jax_attention import decoding
        >>> decoding.pad_prompts([[5, 6, 7], [8]]).tokens
        array([[5, 6, 7],
               [0, 0, 8]], dtype=int32)

    Reference:
        https://github.com/ml-explore/mlx-lm/issues/1906: left padding that decoding forgot.
    """
    fail_unless(side in ("left", "right"), f'side: expected "left" or "right", got {side!r}.')
    check_int("pad", pad, 0, "It is a token id.")
    rows = [_row(f"prompts[{i}]", prompt) for i, prompt in enumerate(prompts)]
    fail_unless(len(rows) > 0, "prompts: expected at least one prompt, got none.")
    lengths = np.array([len(row) for row in rows], np.int32)
    shape = (len(rows), int(lengths.max()))
    tokens, positions = np.full(shape, pad, np.int32), np.full(shape, EMPTY, np.int32)
    for i, row in enumerate(rows):
        place = slice(shape[1] - len(row), None) if side == "left" else slice(len(row))
        tokens[i, place], positions[i, place] = row, np.arange(len(row))
    return Prompts(tokens, positions, lengths)


def _row(name: str, prompt: Any) -> np.ndarray:
    """One prompt as int32 `[T]`, T > 0."""
    row = np.asarray(prompt)
    fail_unless(
        row.ndim == 1 and (row.size == 0 or np.issubdtype(row.dtype, np.integer)),
        f"{name}: expected a sequence of token ids, got {describe_array(prompt)}. Encode text first: "
        "tokenizer.encode(text).",
        TypeError,
    )
    fail_unless(row.size > 0, f"{name}: expected at least one token, got an empty prompt. {_START}")
    return row.astype(np.int32)


_START = "Begin with a start token, or with a line break."


def as_prompts(prompt: Any) -> Prompts:
    """What `generate(prompt)` takes: `Prompts`, tokens `[T]` or `[..., T]`, a list of ids, or a list of lists."""
    if isinstance(prompt, Prompts):
        return prompt
    if isinstance(prompt, (list, tuple)):
        if any(np.ndim(row) for row in prompt):
            return pad_prompts(prompt)
        prompt = _row("prompt", prompt)
    fail_unless(
        hasattr(prompt, "dtype") and np.issubdtype(prompt.dtype, np.integer) and prompt.ndim > 0,
        f"prompt: expected token ids, int32 [T] or [..., T], a list, or a list of lists, got {describe_array(prompt)}. "
        "Encode text first: tokenizer.encode(text).",
        TypeError,
    )
    got = describe_array(prompt)
    fail_unless(prompt.shape[-1] > 0, f"prompt: expected at least one token per row, got {got}. {_START}")
    fail_unless(prompt.size > 0, f"prompt: expected at least one row, got {got}. Leave the call out.")
    length = prompt.shape[-1]
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), prompt.shape)
    return Prompts(prompt.astype(np.int32), positions, np.full(prompt.shape[:-1], length, np.int32))


def fill_up(prompts: Prompts, size: int) -> Prompts:
    """Pad on the right to `size` columns, by rows that nobody attends to."""
    extra = size - prompts.tokens.shape[-1]
    lib = jnp if any(isinstance(x, jax.Array) for x in prompts) else np
    widths = [(0, 0)] * (np.ndim(prompts.tokens) - 1) + [(0, extra)]
    tokens = lib.pad(prompts.tokens, widths)
    return Prompts(tokens, lib.pad(prompts.positions, widths, constant_values=EMPTY), prompts.lengths)
