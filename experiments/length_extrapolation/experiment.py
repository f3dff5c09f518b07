"""Config of the experiment, training of every scheme, and losses at every position of long windows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import small_lm
from experiments.seed_training import TrainedModel, TrainingConfig
from experiments.small_lm import Sizes
from jax_attention import data, models, positions

SCHEMES = ("rotary", "alibi", "t5", "sinusoidal", "none")
"""Position schemes; "learned" is missing, as its table ends at the trained length and the model rejects longer text."""
LONG = "rotary, trained long"


@dataclass(frozen=True)
class Config:
    """Sizes, training, length of the test windows in multiples of the trained length, and their number."""

    sizes: Sizes = field(default_factory=Sizes)
    schooling: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=450, batch_size=16, learning_rate=3e-3)
    )
    schemes: tuple[str, ...] = SCHEMES
    times: int = 8
    held_out: int = 128

    @property
    def longest(self) -> int:
        """Number of bytes of a test window."""
        return self.times * self.sizes.context


SMALL = Config(
    schooling=TrainingConfig(steps=100, batch_size=16, learning_rate=3e-3, seeds=(0, 1)),
    schemes=("rotary", "alibi", "sinusoidal"),
    held_out=32,
)


class Evaluation(NamedTuple):
    """A trained position scheme, and the config fields that are replaced at test time."""

    scheme: str
    changes: dict[str, Any]


def evaluations(config: Config) -> dict[str, Evaluation]:
    """Evaluations by name: each scheme as trained, some with a window of the trained length, rotary ones rescaled."""
    length, times = config.sizes.context, float(config.times)
    scalings = {
        "linear": positions.linear_scaling(times),
        "dynamic": positions.dynamic_scaling(1.0, length),
        "yarn": positions.yarn_scaling(times, length),
    }
    by_name = {scheme: Evaluation(scheme, {}) for scheme in config.schemes}
    for scheme in ("rotary", "sinusoidal", "none"):
        by_name[f"{scheme}, window"] = Evaluation(scheme, {"windows": (length,)})
    for name, scaling in scalings.items():
        by_name[f"rotary, {name}"] = Evaluation("rotary", {"rope": positions.rotary(scaling=scaling)})
    return {name: evaluation for name, evaluation in by_name.items() if evaluation.scheme in config.schemes}


def run(config: Config | None = None, text: Any = ()) -> dict[str, np.ndarray]:
    """Loss in nats at each position of the long windows, `[seeds, times * context]`, of every evaluation by name.

    The last one, `LONG`, is trained on rows as long as the windows, with equally many bytes in a step.
    """
    config = Config() if config is None else config
    corpus = small_lm.read_corpus(config.sizes, text)
    windows = data.Windows(corpus.validation.tokens, config.longest).batch(0, 0, config.held_out)
    curves = {}
    for scheme in config.schemes:
        trained = small_lm.train_language_model(model_config(config, scheme), corpus, config.schooling)
        for name, evaluation in evaluations(config).items():
            if evaluation.scheme == scheme:
                curves[name] = loss_by_position(trained, windows, evaluation.changes)
    curves[LONG] = loss_by_position(train_on_long_rows(config, text), windows, {})
    return {name: curves[name] for name in (*evaluations(config), LONG)}


def model_config(config: Config, scheme: str) -> models.LMConfig:
    """Config of the small model with this position scheme.

    Sinusoids are about 0.7 large, but initial embeddings 0.02; as in the paper, embeddings are then multiplied by
    sqrt(width). Without this, sinusoids drown the embeddings (LOG.md: +0.70 nats).
    """
    return small_lm.base_config(config.sizes).replace(position=scheme, scale_embedding=scheme == "sinusoidal")


def train_on_long_rows(config: Config, text: Any = ()) -> list[TrainedModel]:
    """Train rotary positions on rows as long as the windows; fewer rows, so that a step has equally many bytes."""
    sizes = dataclasses.replace(config.sizes, context=config.longest)
    rows = max(config.schooling.batch_size // config.times, 1)
    training_config = dataclasses.replace(config.schooling, batch_size=rows)
    return small_lm.train_language_model(
        small_lm.base_config(sizes), small_lm.read_corpus(sizes, text), training_config
    )


def loss_by_position(trained: list[TrainedModel], windows: data.Batch, changes: dict[str, Any]) -> np.ndarray:
    """Mean loss at each position `[seeds, T]`, with some fields of the config replaced."""
    losses = jax.jit(lambda model, tokens, targets: small_lm.token_losses(model(tokens).logits, targets).mean(0))
    parts = max(len(windows.tokens) // 32, 1)  # at most 32 to 63 windows at once, to limit memory
    batches = list(zip(np.split(windows.tokens, parts), np.split(windows.targets, parts), strict=True))
    curves = []
    for run in trained:
        model = with_config_changes(run.model, context=windows.tokens.shape[-1], **changes)
        curves.append(np.mean([np.asarray(losses(model, *batch), np.float64) for batch in batches], axis=0))
    return np.stack(curves)


def with_config_changes(model: models.TransformerLM, **changes: Any) -> models.TransformerLM:
    """Model with the same parameters and another config."""
    return models.from_dict(model.config.replace(**changes), models.to_dict(model))
