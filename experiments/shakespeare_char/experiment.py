"""The setting, and one training for each position scheme and seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_attention import data, models, training

TARGET = 1.88
"""Validation loss in nanoGPT's README, "I only have a macbook", https://github.com/karpathy/nanoGPT."""


@dataclass(frozen=True)
class Config:
    """Sizes and training; every position scheme is trained from every seed."""

    context: int = 64
    batch_size: int = 12
    depth: int = 4
    num_heads: int = 4
    width: int = 128
    positions: tuple[str, ...] = ("rotary", "learned")
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 2000
    evaluate_every: int = 250
    optimizer: training.OptimizerConfig = field(
        default_factory=lambda: training.OptimizerConfig(
            learning_rate=1e-3, final_rate=1e-4, warmup=100, beta2=0.99, weight_decay=0.1, clip=1.0
        )
    )

    def model(self, vocab_size: int, position: str) -> models.LMConfig:
        """Config of the model with this position scheme."""
        return models.LMConfig(
            vocab_size=vocab_size,
            context=self.context,
            width=self.width,
            depth=self.depth,
            num_heads=self.num_heads,
            position=position,
            use_bias=False,
        )


SMALL = Config(seeds=(0,), steps=150, evaluate_every=50)


def read_corpus(config: Config, text: Path) -> data.Corpus:
    """Read the characters of a file."""
    return data.prepare(text, tokenizer="characters", length=config.context)


def run(config: Config, corpus: data.Corpus) -> dict[str, np.ndarray]:
    """Validation losses `[seeds, evaluations]` by position scheme; the last evaluation comes after the last step."""
    return {
        position: np.array([train(config, corpus, position, seed) for seed in config.seeds])
        for position in config.positions
    }


def train(config: Config, corpus: data.Corpus, position: str, seed: int) -> list[float]:
    """Train one model by the library's loop and return the loss of each evaluation."""
    optimizer = training.make_optimizer(config.optimizer, steps=config.steps)
    schedule = training.make_schedule(config.optimizer, steps=config.steps)
    model = models.create(config.model(corpus.tokenizer.vocab_size, position), seed)
    evaluate_split, losses = training.make_evaluate(corpus.validation, 64), []

    def evaluate(model: Any) -> dict[str, float]:
        metrics = evaluate_split(model)
        losses.append(metrics["loss"])
        return metrics

    fitted = training.fit(
        training.init_state(model, optimizer, rng=jax.random.key(seed)),
        training.make_train_step(optimizer, schedule=schedule),
        corpus.train,
        training.LoopConfig(
            steps=config.steps, batch_size=config.batch_size, seed=seed, evaluate_every=config.evaluate_every
        ),
        evaluate=evaluate,
        progress=training.progress(config.steps),
    )
    if fitted.stopped is not None:
        raise SystemExit(f"{fitted.stopped}: stopped before the end; no results were written")
    return losses
