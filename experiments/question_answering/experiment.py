"""Config of the experiment, training of every model, its answers and maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import corpora
from experiments.corpora.passage_words import INSTRUMENTS, KINDS
from experiments.question_answering.answer_maps import AnswerMaps, answer_maps
from experiments.question_answering.texts import Chance, chance, make_rows, word_tokenizer
from experiments.seed_training import ArrayBatches, TrainingConfig, count_parameters, train_seeds
from experiments.seq2seq_models import TRANSFORMER, Sizes, seq2seq_model
from jax_attention import data

MAPPED = "additive"
"""The model whose maps are measured and drawn: it has one map, and answers in one step."""


@dataclass(frozen=True)
class Config:
    """Passages, models, and the training of each model."""

    people: tuple[int, int] = (2, 3)
    train: int = 20_000
    test: int = 500
    models: tuple[str, ...] = ("no attention", MAPPED, TRANSFORMER)
    sizes: Sizes = field(default_factory=lambda: Sizes(width=64))
    recurrent: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1500, learning_rate=5e-3))
    transformer: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1500, learning_rate=3e-3))

    def schooling(self, name: str) -> TrainingConfig:
        """Training of the model with this name."""
        return self.transformer if name == TRANSFORMER else self.recurrent


SMALL = Config(
    people=(2, 2),
    train=10_000,
    test=100,
    models=("no attention", MAPPED),
    recurrent=TrainingConfig(steps=700, learning_rate=5e-3, seeds=(1, 2)),
)


class ModelResults(NamedTuple):
    """Results of one kind of model: right answers `[seeds, test]` by set, losses `[seeds, steps]`, size, step time."""

    right: dict[str, np.ndarray]
    losses: np.ndarray
    parameters: int
    seconds: float


class Results(NamedTuple):
    """Test passages and chance by set, results by model, and maps of the model `MAPPED` by set and seed."""

    passages: dict[str, list[corpora.Passage]]
    chance: dict[str, Chance]
    models: dict[str, ModelResults]
    maps: dict[str, list[AnswerMaps]]


def run(config: Config | None = None) -> Results:
    """Train every model from every seed, and let it answer."""
    config = Config() if config is None else config
    training = generate_passages(config, 0, config.train)
    tests = {
        "training passages": training[: config.test],
        "new passages": generate_passages(config, 1, config.test),
        "new pairs": generate_passages(config, 2, config.test, combinations="held_out"),
    }
    words = word_tokenizer(training)
    source = ArrayBatches(**make_rows(training, words))
    models, maps = {}, {}
    for name in config.models:
        create = seq2seq_model(name, words.vocab_size, words.vocab_size, config.sizes)
        trained = train_seeds(create, source, config.schooling(name))
        right = {
            which: np.array([is_right(run.model, passages, words) for run in trained])
            for which, passages in tests.items()
        }
        models[name] = ModelResults(
            right,
            np.array([run.losses for run in trained]),
            count_parameters(trained[0].model),
            float(np.median([run.seconds for run in trained])),
        )
        if name == MAPPED:
            maps = {
                which: [answer_maps(run.model, passages, words) for run in trained] for which, passages in tests.items()
            }
    return Results(tests, {which: chance(training, passages) for which, passages in tests.items()}, models, maps)


def generate_passages(config: Config, seed: int, count: int, combinations: str = "training") -> list[corpora.Passage]:
    """First `count` passages about instruments."""
    drawn = count * (len(KINDS) + 2)  # one passage in `len(KINDS)` is about instruments; two more for chance
    passages = corpora.passages(seed, drawn, people=config.people, kinds=1, combinations=combinations)
    return [passage for passage in passages if passage.answer in INSTRUMENTS][:count]


@jax.jit
def _likeliest_answer(model: Any, source: jax.Array, positions: jax.Array, tokens: jax.Array) -> jax.Array:
    return model(source, tokens, source_positions=positions).logits[:, -1].argmax(-1)


def is_right(model: Any, passages: list[corpora.Passage], words: data.Words) -> np.ndarray:
    """Whether the likeliest word is the answer, `[passages]`."""
    rows = make_rows(passages, words)
    predicted = _likeliest_answer(model, rows["source"], rows["source_positions"], rows["tokens"])
    return np.asarray(predicted) == rows["targets"][:, 0]
