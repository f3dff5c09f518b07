"""Tokens that both models read: the caller's, or random ones that reach what can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jax_attention import data
from jax_attention.cache import EMPTY
from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.models import LMConfig

LENGTH, MAX_LENGTH = 16, 256
"""Random tokens in a row: usually, and at most where more are needed to leave a window or to reach far positions."""
ENCODER = "encoder"


@dataclass(frozen=True)
class TokenBatch:
    """The tokens that one stack reads, each array `[B, T]`."""

    tokens: np.ndarray
    """0 at padding."""
    is_token: np.ndarray
    """False at padding."""
    types: np.ndarray | None

    def positions(self, skip_padding: bool) -> np.ndarray:
        """Positions of the tokens, counted with or without the padding before them; `EMPTY` for padding."""
        counted = np.cumsum(self.is_token if skip_padding else np.ones_like(self.is_token), axis=-1) - 1
        return np.where(self.is_token, counted, EMPTY).astype(np.int32)


def choose_tokens(
    configs: Mapping[str, LMConfig], folder: Path | None, tokens: Any, text: str | None, source: Any
) -> dict[str, TokenBatch]:
    """The tokens of each stack. The source is for the encoder of an encoder-decoder, tokens or text for the other stack
    or the only one; what is None is random.
    """
    fail_unless(tokens is None or text is None, "text: expected tokens or text, got both. Leave one out.")
    fail_unless(
        source is None or ENCODER in configs,
        "source: expected None, as this model reads one sequence, got a source. Give it as tokens.",
    )
    arguments = {"tokens": tokens, "text": text, "source": source}
    names = {stack: "text" if text is not None else "tokens" for stack in configs}
    names |= {ENCODER: "source"} if ENCODER in configs else {}
    rows = {stack: _encode(config, folder, names[stack], arguments[names[stack]]) for stack, config in configs.items()}
    counts = {len(x) for x in rows.values() if x is not None} or {2}
    fail_unless(len(counts) == 1, f"source: expected as many rows as the target has, got {sorted(counts)}.")
    for seed, (stack, config) in enumerate(reversed(configs.items())):
        rows[stack] = random_tokens(config, min(counts), seed) if rows[stack] is None else rows[stack]
    return {stack: _token_batch(config, rows[stack]) for stack, config in configs.items()}


def _encode(config: LMConfig, folder: Path | None, name: str, content: Any) -> np.ndarray | None:
    """Token ids `[B, T]` of an argument, negative at padding; a text is encoded with the tokenizer of the folder."""
    if isinstance(content, str):
        fail_unless(
            folder is not None,
            f"{name}: expected tokens for a model in memory, got text, and no folder with a tokenizer. Encode it "
            "first.",
        )
        content = data.load_tokenizer(folder).encode(content)
    return None if content is None else _check_tokens(config, name, np.asarray(content))


def _token_batch(config: LMConfig, tokens: np.ndarray) -> TokenBatch:
    count, is_token = config.token_types, tokens >= 0
    types = np.random.default_rng(0).integers(0, count, tokens.shape) if count else None
    return TokenBatch(np.where(is_token, tokens, 0).astype(np.int64), is_token, types)


def random_tokens(config: LMConfig, rows: int, seed: int) -> np.ndarray:
    """Random token ids, always the same for a seed; other seeds also have other lengths.

    A quarter of every second row is padding, so that faults in padding show: after the tokens of a model that sees the
    future, else before them, where a causal model would attend to it. Rows are 4 tokens longer than the largest window,
    so that its size makes a difference.
    """
    # From its largest distance on T5 treats all positions alike.
    far = config.t5_max_distance if config.position == "t5" else None
    reach = [size + 4 for size in (*config.windows, far) if size is not None]
    length = min(config.context, max([LENGTH + 3 * seed, *(size for size in reach if size <= MAX_LENGTH)]))
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (rows, length))
    tokens[1::2, slice(-(length // 4), None) if config.sees_future() else slice(length // 4)] = -1
    return tokens


def _check_tokens(config: LMConfig, name: str, tokens: np.ndarray) -> np.ndarray:
    fail_unless(
        np.issubdtype(tokens.dtype, np.integer) and tokens.ndim in (1, 2) and tokens.size > 0,
        f"{name}: expected integers [T] or [B, T], got {describe_array(tokens)}. Encode text first, or give text=.",
        ValueError if np.issubdtype(tokens.dtype, np.integer) else TypeError,
    )
    tokens = np.atleast_2d(tokens)
    fail_unless(
        int(tokens.max()) < config.vocab_size,
        f"{name}: expected ids below vocab_size = {config.vocab_size}, got {int(tokens.max())}.",
    )
    fail_unless(
        tokens.shape[-1] <= config.context,
        f"{name}: expected at most context = {config.context}, got {tokens.shape[-1]}. Cut them.",
    )
    starts = np.diff((tokens >= 0).astype(int), axis=-1, prepend=0, append=0)
    fail_unless(
        bool(((starts == 1).sum(axis=-1) == 1).all()),
        f"{name}: expected tokens in one piece in every row, and padding (negative ids) before or after them, got "
        "rows without tokens or with padding between them.",
    )
    return tokens


def window_notes(config: LMConfig, is_token: np.ndarray) -> tuple[str, ...]:
    """Windows whose size these tokens do not compare, as sentences."""
    length = int(is_token.sum(axis=-1).max())
    far = sorted({size for size in config.windows if size is not None and size >= length})
    return tuple(f"A window of {size} keys is not left by {length} tokens: its size is not compared." for size in far)
