"""Recall of the value after a key, at every distance, in sources as long as in training and longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.seed_training import ArrayBatches, TrainingConfig, count_parameters, train_seeds
from experiments.seq2seq_models import Sizes, seq2seq_model
from jax_attention import data

TRAINING_SEED, TEST_SEED = 1, 2
CANDIDATES = 4
"""Candidates drawn for each test question, as some of them are in the training set."""


@dataclass(frozen=True)
class ModelTraining:
    """Name of a model of `seq2seq_models`, and its training."""

    name: str
    schooling: TrainingConfig


SEEDS = (0, 1, 2)
TRAININGS = (
    ModelTraining("no attention", TrainingConfig(1500, 64, 1e-2, SEEDS)),
    ModelTraining("dot", TrainingConfig(1500, 64, 1e-2, SEEDS)),
    ModelTraining("Transformer", TrainingConfig(1500, 64, 3e-3, SEEDS)),
)
LONGER_TRAININGS = (*TRAININGS[:2], ModelTraining("Transformer", TrainingConfig(2500, 128, 3e-3, SEEDS)))


@dataclass(frozen=True)
class RecallConfig:
    """Sizes of the recall task and the models to train on it.

    Args:
        most: a training source has 1 to `most` pairs of a key and a value, and asks for any of them.
        keys: number of different keys, and of different values.
        width: width of the models.
        rows: number of training sources.
        asked: number of test questions at each distance.
        distances: distances of the questions in sources of `most` pairs.
        beyond: number of pairs in the test sources that are longer than any in training.
        beyond_distances: distances of the questions in these.
        taught: the models and their training.
    """

    most: int = 8
    keys: int = 16
    width: int = 32
    rows: int = 40_000
    asked: int = 500
    distances: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    beyond: int = 16
    beyond_distances: tuple[int, ...] = (1, 2, 4, 6, 8, 10, 12, 14, 16)
    taught: tuple[ModelTraining, ...] = TRAININGS

    @property
    def name(self) -> str:
        """Name of the setting in tables and figures."""
        return f"{self.most} of {self.keys} keys"

    @property
    def vocabulary(self) -> int:
        """Number of keys, values and the question mark."""
        return 2 * self.keys + 1


class RecallResults(NamedTuple):
    """Shares of right answers `[seeds, distances]` in known and greater lengths, parameters, last losses `[seeds]`."""

    inside: np.ndarray
    beyond: np.ndarray
    parameters: int
    last_loss: np.ndarray


def make_rows(config: RecallConfig, seed: int, count: int, length: Any, distance: int | None = None) -> ArrayBatches:
    """Sources, padded to one length, and the one token of each answer."""
    rng = np.random.default_rng((seed, distance or 0))
    sources, targets = data.tasks.recall(rng, count, length, config.vocabulary, distance=distance)
    source, positions = data.pad_rows(sources)
    answers = np.stack(targets)
    start = np.full_like(answers, config.vocabulary)
    weights = np.ones(answers.shape, np.float32)
    return ArrayBatches(source=source, source_positions=positions, tokens=start, targets=answers, weights=weights)


@jax.jit
def share_right(model: Any, batch: Any) -> jax.Array:
    """Share of right answers."""
    output = model(batch.source, batch.tokens, source_positions=batch.source_positions)
    return jnp.mean(jnp.argmax(output.logits, axis=-1) == batch.targets)


def run(config: RecallConfig) -> dict[str, RecallResults]:
    """Train every model from every seed and question it at every distance."""
    source = make_rows(config, TRAINING_SEED, config.rows, (1, config.most))
    inside = question_batches(config, config.most, config.distances, source)
    beyond = question_batches(config, config.beyond, config.beyond_distances, source)
    results = {}
    for model in config.taught:
        words, longest = config.vocabulary, 2 * config.beyond + 2
        create = seq2seq_model(model.name, words, words + 2, Sizes(width=config.width), longest)
        trained = train_seeds(create, source, model.schooling)
        shares = [
            [[float(share_right(run.model, batch)) for batch in batches] for run in trained]
            for batches in (inside, beyond)
        ]
        losses = np.array([run.losses[-20:].mean() for run in trained])
        results[model.name] = RecallResults(*map(np.array, shares), count_parameters(trained[0].model), losses)
    return results


def question_batches(
    config: RecallConfig, length: int, distances: tuple[int, ...], training_rows: ArrayBatches
) -> list[Any]:
    """A batch for each distance, all of one length, without the sources of the training set."""
    known = set(map(tuple, training_rows.arrays.source.tolist()))
    batches = []
    for distance in distances:
        candidates = make_rows(config, TEST_SEED, CANDIDATES * config.asked, length, distance).arrays
        new = [i for i, source in enumerate(candidates.source.tolist()) if tuple(source) not in known][: config.asked]
        if len(new) < config.asked:
            raise ValueError(
                f"rows: expected a training set that leaves {config.asked} new sources at distance {distance}, got "
                f"{config.rows} rows, which leave {len(new)}. Take fewer rows, or more keys."
            )
        batches.append(jax.tree.map(lambda x, new=new: x[new], candidates))
    return batches


def most_frequent_value_accuracy(config: RecallConfig, length: int) -> float:
    """Share of right answers when the answer is always the most frequent value of the source."""
    source = make_rows(config, TEST_SEED, config.asked, length).arrays.source
    values = source[:, 1 : 2 * length : 2]
    return float((values[:, :, None] == values[:, None]).sum(-1).max(-1).mean() / length)
