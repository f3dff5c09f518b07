"""The setting in which training steps are compared, without any framework: sizes, optimiser numbers, batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """Sizes of the model and of a batch, and what AdamW needs; the defaults are the CPU setting that we compare in."""

    vocab_size: int = 65
    context: int = 64
    width: int = 128
    depth: int = 4
    num_heads: int = 4
    batch: int = 12
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0


def tokens_and_targets(setting: Setting, count: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` batches of random tokens `[B, T]` and their successors: every competitor gets the same ones."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(setting.vocab_size, size=(count, setting.batch, setting.context + 1))
    return [(window[:, :-1], window[:, 1:]) for window in windows]
