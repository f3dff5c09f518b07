"""Setting of the compared training steps, without any framework: sizes, optimiser hyperparameters, batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """Sizes of the model and of a batch, and hyperparameters of AdamW; the defaults are those of the benchmark."""

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
    """`count` batches of random tokens `[B, T]` and next tokens `[B, T]`, the same for every competitor."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(setting.vocab_size, size=(count, setting.batch, setting.context + 1))
    return [(window[:, :-1], window[:, 1:]) for window in windows]
