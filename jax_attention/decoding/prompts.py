"""Prompts as arrays: ragged lists padded on either side, and padded further to a bucket so that few lengths compile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.short_repr import short_repr

if TYPE_CHECKING:
    from jaxtyping import Array, Int


EMPTY_PROMPT_CURE = "Begin with a start token, or with a line break."


@short_repr
class Prompts(NamedTuple):
    """Padded tokens, with positions that mark the padding; made by `pad_prompts`."""

    tokens: Int[Array, "*batch T"]
    """int32 token ids, padding included."""
    positions: Int[Array, "*batch T"]
    """0, 1, 2, … along the tokens of a row; `cache.EMPTY` at padding, so that nothing attends to it."""
    lengths: Int[Array, "*batch"]
    """Number of tokens of each row without padding."""


def pad_prompts(prompts: Sequence[Sequence[int]], *, side: str = "left", pad: int = 0) -> Prompts:
    """Pad prompts of different lengths to one array.

        left:   [[5, 6, 7], [8]]  ->  tokens [[5, 6, 7], [pad, pad, 8]],  positions [[0, 1, 2], [EMPTY, EMPTY, 0]]
        right:  [[5, 6, 7], [8]]  ->  tokens [[5, 6, 7], [8, pad, pad]],  positions [[0, 1, 2], [0, EMPTY, EMPTY]]

    Args:
        prompts: one sequence of token ids per row.
        side: "left" or "right", where the padding goes. `generate` gives the same tokens for both.
        pad: the token id of padding; nothing attends to it.

    Returns:
        `Prompts` of NumPy arrays `[B, T]`, `[B, T]` and `[B]`, T the length of the longest prompt.

    Raises:
        ValueError: if there is no prompt, a prompt is empty, or `side` is anything else.
        TypeError: if a prompt is not a sequence of integers.

    Example:
        >>> from jax_attention import decoding
        >>> decoding.pad_prompts([[5, 6, 7], [8]]).tokens
        array([[5, 6, 7],
               [0, 0, 8]], dtype=int32)

    Reference:
        https://github.com/ml-explore/mlx-lm/issues/1906: decoding that ignored left padding.
    """
    fail_unless(side in ("left", "right"), f'side: expected "left" or "right", got {side!r}.')
    check_int("pad", pad, 0, "It is a token id.")
    rows = [_as_row(f"prompts[{i}]", prompt) for i, prompt in enumerate(prompts)]
    fail_unless(len(rows) > 0, "prompts: expected at least one prompt, got none.")
    lengths = np.array([len(row) for row in rows], np.int32)
    shape = (len(rows), int(lengths.max()))
    tokens, positions = np.full(shape, pad, np.int32), np.full(shape, EMPTY, np.int32)
    for i, row in enumerate(rows):
        columns = slice(shape[1] - len(row), None) if side == "left" else slice(len(row))
        tokens[i, columns], positions[i, columns] = row, np.arange(len(row))
    return Prompts(tokens, positions, lengths)


def _as_row(name: str, prompt: Any) -> np.ndarray:
    """Convert one prompt to int32 `[T]`, T > 0."""
    row = np.asarray(prompt)
    fail_unless(
        row.ndim == 1 and (row.size == 0 or np.issubdtype(row.dtype, np.integer)),
        f"{name}: expected a sequence of token ids, got {describe_array(prompt)}. Encode text first: "
        "tokenizer.encode(text).",
        TypeError,
    )
    fail_unless(row.size > 0, f"{name}: expected at least one token, got an empty prompt. {EMPTY_PROMPT_CURE}")
    return row.astype(np.int32)


def as_prompts(prompt: Any) -> Prompts:
    """Convert the argument `prompt`: `Prompts`, ids `[T]` or `[..., T]`, a list of ids, or a list of lists."""
    if isinstance(prompt, Prompts):
        return prompt
    if isinstance(prompt, (list, tuple)):
        if any(np.ndim(row) for row in prompt):
            return pad_prompts(prompt)
        prompt = _as_row("prompt", prompt)
    fail_unless(
        hasattr(prompt, "dtype") and np.issubdtype(prompt.dtype, np.integer) and prompt.ndim > 0,
        f"prompt: expected token ids, int32 [T] or [..., T], a list, or a list of lists, got {describe_array(prompt)}. "
        "Encode text first: tokenizer.encode(text).",
        TypeError,
    )
    got = describe_array(prompt)
    fail_unless(prompt.shape[-1] > 0, f"prompt: expected at least one token per row, got {got}. {EMPTY_PROMPT_CURE}")
    fail_unless(prompt.size > 0, f"prompt: expected at least one row, got {got}. Leave the call out.")
    length = prompt.shape[-1]
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), prompt.shape)
    return Prompts(prompt.astype(np.int32), positions, np.full(prompt.shape[:-1], length, np.int32))


def pad_columns(prompts: Prompts, size: int) -> Prompts:
    """Pad on the right to `size` columns that nothing attends to."""
    extra = size - prompts.tokens.shape[-1]
    # NumPy for NumPy arrays: padding them on the host compiles nothing.
    lib = jnp if any(isinstance(x, jax.Array) for x in prompts) else np
    widths = [(0, 0)] * (np.ndim(prompts.tokens) - 1) + [(0, extra)]
    tokens = lib.pad(prompts.tokens, widths)
    return Prompts(tokens, lib.pad(prompts.positions, widths, constant_values=EMPTY), prompts.lengths)
