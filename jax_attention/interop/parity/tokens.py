"""What both models read: tokens that are given, or random ones that reach what can be wrong."""

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

USUAL, MOST = 16, 256
"""Tokens in a row; more where a window has to be left, or far tokens to be seen."""
FAR = {"t5": 128}
"""Kinds of positions that are all the same from here on."""
ENCODER = "encoder"


@dataclass(frozen=True)
class Read:
    """What an encoder, a decoder or a model that is only one of them reads, `[B, T]` of each."""

    tokens: np.ndarray
    """0 at padding."""
    seen: np.ndarray
    """False at padding."""
    types: np.ndarray | None

    def positions(self, of_seen: bool) -> np.ndarray:
        """Where tokens stand, counting tokens or places; padding stands nowhere."""
        counted = np.cumsum(self.seen if of_seen else np.ones_like(self.seen), axis=-1) - 1
        return np.where(self.seen, counted, EMPTY).astype(np.int32)


def chosen(
    configs: Mapping[str, LMConfig], folder: Path | None, tokens: Any, text: str | None, source: Any
) -> dict[str, Read]:
    """What each half reads: the source is the encoder's of a pair, tokens or text are for the other, or only, half."""
    fail_unless(tokens is None or text is None, "text: expected tokens or text, got both. Leave one out.")
    fail_unless(
        source is None or ENCODER in configs,
        "source: expected None, as this model reads one sequence, got a source. Give it as tokens.",
    )
    names = {half: "text" if text is not None else "tokens" for half in configs}
    names |= {ENCODER: "source"} if ENCODER in configs else {}
    values = {"tokens": tokens, "text": text, "source": source}
    given = {half: _given(config, folder, names[half], values[names[half]]) for half, config in configs.items()}
    counts = {len(x) for x in given.values() if x is not None} or {2}
    fail_unless(len(counts) == 1, f"source: expected as many rows as the target has, got {sorted(counts)}.")
    for seed, (half, config) in enumerate(reversed(configs.items())):
        given[half] = random_tokens(config, min(counts), seed) if given[half] is None else given[half]
    return {half: _read(config, given[half]) for half, config in configs.items()}


def _given(config: LMConfig, folder: Path | None, name: str, given: Any) -> np.ndarray | None:
    if isinstance(given, str):
        fail_unless(
            folder is not None,
            f"{name}: expected tokens for a model in memory, got text, and no folder with a tokenizer. Encode it "
            "first.",
        )
        given = data.load_tokenizer(folder).encode(given)
    return None if given is None else _checked(config, name, np.asarray(given))


def _read(config: LMConfig, tokens: np.ndarray) -> Read:
    kinds, seen = config.token_types, tokens >= 0
    types = np.random.default_rng(0).integers(0, kinds, tokens.shape) if kinds else None
    return Read(np.where(seen, tokens, 0).astype(np.int64), seen, types)


def random_tokens(config: LMConfig, rows: int, seed: int) -> np.ndarray:
    """Always the same for a seed; every second row has padding, a quarter of it: behind its tokens where they see the
    future, else in front. Other seeds have other lengths too.
    """
    reach = [size + 4 for size in (*config.windows, FAR.get(config.position)) if size is not None]
    length = min(config.context, max([USUAL + 3 * seed, *(size for size in reach if size <= MOST)]))
    tokens = np.random.default_rng(seed).integers(0, config.vocab_size, (rows, length))
    tokens[1::2, slice(-(length // 4), None) if config.sees_future() else slice(length // 4)] = -1
    return tokens


def _checked(config: LMConfig, name: str, tokens: np.ndarray) -> np.ndarray:
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
    steps = np.diff((tokens >= 0).astype(int), axis=-1, prepend=0, append=0)
    fail_unless(
        bool(((steps == 1).sum(axis=-1) == 1).all()),
        f"{name}: expected tokens in one piece in every row, and padding (negative ids) before or behind them, got "
        "rows without tokens or with padding between them.",
    )
    return tokens


def window_notes(config: LMConfig, seen: np.ndarray) -> tuple[str, ...]:
    """What these tokens cannot show."""
    length = int(seen.sum(axis=-1).max())
    far = sorted({size for size in config.windows if size is not None and size >= length})
    return tuple(f"A window of {size} keys is not left by {length} tokens: its size is not compared." for size in far)
