"""Config of the experiment, training of every variant, its losses and the entropy of its maps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import small_lm
from experiments.seed_training import TrainedModel, TrainingConfig
from experiments.small_lm import Sizes
from experiments.swap_the_rule.step_times import step_seconds
from experiments.swap_the_rule.variants import BASE, NAMES, replaced_fields
from jax_attention import data, models, viz

MAPPED_WINDOWS = 64
"""Number of held-out windows whose attention maps are evaluated."""


@dataclass(frozen=True)
class Config:
    """Sizes, training, names of the variants, number of held-out windows, and rounds of timing."""

    sizes: Sizes = field(default_factory=Sizes)
    schooling: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=300, batch_size=12, learning_rate=3e-3)
    )
    variants: tuple[str, ...] = NAMES
    held_out: int = 512
    rounds: int = 40

    def models(self) -> dict[str, models.LMConfig]:
        """Config of each variant, the base first."""
        base = small_lm.base_config(self.sizes)
        names = (BASE, *(name for name in self.variants if name != BASE))
        return {name: dataclasses.replace(base, **replaced_fields(name, base)) for name in names}


SMALL = Config(
    schooling=TrainingConfig(steps=60, batch_size=12, learning_rate=3e-3, seeds=(0, 1)),
    variants=(BASE, "cosine, scale 8", "sigmoid", "alibi", "window 1"),
    held_out=64,
    rounds=5,
)


class VariantResults(NamedTuple):
    """Results of one variant: losses in nats per byte `[seeds]`, entropies and row sums `[seeds, layers, heads]`.

    first, training: first loss of training, and mean loss of its last tenth.
    held_out: loss on held-out windows.
    entropy: mean entropy of the rows of all maps, each divided by its sum, in nats.
    sums: mean sum of the rows.
    seconds: times of a training step, `[rounds]`.
    """

    first: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    entropy: np.ndarray
    sums: np.ndarray
    seconds: np.ndarray


class Results(NamedTuple):
    """Results by variant, and the mean entropy of uniform causal rows, the largest possible."""

    variants: dict[str, VariantResults]
    max_entropy: float


def run(config: Config | None = None, text: Any = ()) -> Results:
    """Train every variant from every seed, evaluate all on the same held-out windows, then time their steps."""
    config = Config() if config is None else config
    corpus = small_lm.read_corpus(config.sizes, text)
    windows = corpus.validation.batch(seed=0, step=0, batch_size=config.held_out)
    evaluated = {}
    for name, model in config.models().items():
        evaluated[name] = evaluate(small_lm.train_language_model(model, corpus, config.schooling), windows)
    seconds = step_seconds(config.models(), corpus, config.schooling, config.rounds)
    max_entropy = float(np.mean(np.log(np.arange(1, config.sizes.context + 1))))
    return Results({name: VariantResults(*parts, seconds[name]) for name, parts in evaluated.items()}, max_entropy)


def evaluate(trained: list[TrainedModel], windows: data.Batch) -> tuple[np.ndarray, ...]:
    """Fields of `VariantResults` but for the times, by seed."""

    @jax.jit
    def loss_and_maps(model: models.TransformerLM, tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
        out = model(tokens, capture=models.Capture(weights="all"))
        return small_lm.token_losses(out.logits, targets).mean(), out.captured.weights

    rows = []
    for run in trained:
        loss, weights = loss_and_maps(run.model, windows.tokens, windows.targets)
        layers = [np.asarray(weights[n][:MAPPED_WINDOWS], np.float64) for n in sorted(weights)]
        last = run.losses[-max(len(run.losses) // 10, 1) :].mean()
        rows.append((run.losses[0], last, float(loss), *entropy_and_sums(np.stack(layers))))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def entropy_and_sums(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean entropy of the rows, each divided by its sum, and mean row sum, `[L, N]`, of maps `[L, B, N, T, S]`."""
    maps = np.moveaxis(maps, 1, 2)
    maps = maps.reshape(*maps.shape[:2], -1, maps.shape[-1])
    sums = maps.sum(-1, keepdims=True)
    # A row of relu weights may be all 0; it stays 0 instead of becoming NaN.
    return viz.head_entropy(maps / np.where(sums > 0, sums, 1)), sums.mean((-2, -1))
