"""What both models read: tokens that are given, or random ones that reach what can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jax_attention import data
from jax_attention.ground.checks import describe_array, fail_unless
from jax_attention.models import LMConfig

USUAL, MOST = 16, 256
"""Tokens in a row; more where a window has to be left."""


def chosen_tokens(
    config: LMConfig, folder: Path | None, tokens: Any, text: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """`[B, T]` of each: tokens, 0 at padding, and what is no padding."""
    fail_unless(tokens is None or text is None, "text: expected tokens or text, got both. Leave one out.")
    if text is not None:
        fail_unless(
            folder is not None,
            "text: expected tokens for a model in memory, got text, and no folder with a tokenizer. Encode it first.",
        )
        tokens = np.asarray(data.load_tokenizer(folder).encode(text))
    tokens = random_tokens(config) if tokens is None else _checked(config, np.asarray(tokens))
    seen = tokens >= 0
    return np.where(seen, tokens, 0).astype(np.int64), seen


def random_tokens(config: LMConfig) -> np.ndarray:
    """Two rows, always the same; the second begins with padding, a quarter of it."""
    reach = [size + 4 for size in config.windows if size is not None and size + 4 <= MOST]
    length = min(config.context, max([USUAL, *reach]))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, length))
    tokens[1, : length // 4] = -1
    return tokens


def _checked(config: LMConfig, tokens: np.ndarray) -> np.ndarray:
    fail_unless(
        np.issubdtype(tokens.dtype, np.integer) and tokens.ndim in (1, 2) and tokens.size > 0,
        f"tokens: expected integers [T] or [B, T], got {describe_array(tokens)}. Encode text first, or give text=.",
        ValueError if np.issubdtype(tokens.dtype, np.integer) else TypeError,
    )
    tokens = np.atleast_2d(tokens)
    fail_unless(
        int(tokens.max()) < config.vocab_size,
        f"tokens: expected ids below vocab_size = {config.vocab_size}, got {int(tokens.max())}.",
    )
    fail_unless(
        tokens.shape[-1] <= config.context,
        f"tokens: expected at most context = {config.context}, got {tokens.shape[-1]}. Cut them.",
    )
    seen = tokens >= 0
    fail_unless(
        bool(seen[:, -1].all() and (np.diff(seen.astype(int), axis=-1) >= 0).all()),
        "tokens: expected padding (negative ids) on the left only, got some elsewhere. Turn the rows round.",
    )
    return tokens


def window_notes(config: LMConfig, seen: np.ndarray) -> tuple[str, ...]:
    """What these tokens cannot show."""
    length = int(seen.sum(axis=-1).max())
    far = sorted({size for size in config.windows if size is not None and size >= length})
    return tuple(f"A window of {size} keys is not left by {length} tokens: its size is not compared." for size in far)
