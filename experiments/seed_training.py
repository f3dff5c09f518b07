"""Training of one model from several seeds with one compiled step, for every experiment that trains."""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jax_attention import training


@dataclass(frozen=True)
class TrainingConfig:
    """Number of steps, batch size, peak rate of Adam (warmup, then a cosine), and the seeds to train from."""

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-3
    seeds: tuple[int, ...] = (0, 1, 2)


class TrainedModel(NamedTuple):
    """A trained model, its loss at each step `[steps]`, and the median time of a step in seconds."""

    model: Any
    losses: np.ndarray
    seconds: float


@cache
def _batch_type(fields: tuple[str, ...]) -> Any:
    """Named tuple with these fields, one type for equal fields.

    A pytree is told apart by its types: a new type for the same fields would compile every step again.
    """
    return namedtuple("Batch", fields)


class ArrayBatches:
    """Source of batches from arrays with one leading axis: rows are drawn with replacement, by seed and step."""

    def __init__(self, **arrays: Any) -> None:
        self.arrays = _batch_type(tuple(arrays))(*map(np.asarray, arrays.values()))

    def batch(self, seed: int, step: int, batch_size: int) -> Any:
        """Named tuple with `batch_size` rows of each array."""
        indices = np.random.default_rng((seed, step)).integers(len(self.arrays[0]), size=batch_size)
        return jax.tree.map(lambda x: x[indices], self.arrays)


def train_seeds(
    create: Callable[[jax.Array], Any],
    source: Any,
    config: TrainingConfig,
    loss: Callable[..., training.Losses] = training.seq2seq_loss,
) -> list[TrainedModel]:
    """Train the same model from every seed. The seed decides initial parameters, batches and dropout.

    Args:
        create: makes the model from a random key.
        source: has `batch(seed, step, batch_size)`.
        config: steps, rate, seeds.
        loss: a loss function as `training.make_train_step` takes it.

    Returns:
        One `TrainedModel` for each seed.
    """
    optimizer, step = _optimizer_and_step(adam, config.learning_rate, config.steps, loss)
    return [_train_one(create, optimizer, step, source, config, seed) for seed in config.seeds]


def adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with the library's warmup and cosine, without weight decay."""
    return training.make_optimizer(training.OptimizerConfig(learning_rate=learning_rate, weight_decay=0.0), steps=steps)


def initial_model(create: Callable[[jax.Array], Any], rng: jax.Array) -> Any:
    """Create the model in one compiled program."""
    return jax.jit(create)(rng)


@cache
def _optimizer_and_step(
    make_optimizer: Callable[[float, int], optax.GradientTransformation],
    learning_rate: float,
    steps: int,
    loss: Callable[..., training.Losses],
) -> tuple[Any, Any]:
    """Optimizer and jitted step, cached: `jit` compiles again for a new function, even for one with the same text."""
    optimizer = make_optimizer(learning_rate, steps)
    return optimizer, jax.jit(training.make_train_step(optimizer, loss=loss), donate_argnums=0)


def _train_one(create: Any, optimizer: Any, step: Any, source: Any, config: TrainingConfig, seed: int) -> TrainedModel:
    model_rng, dropout_rng = jax.random.split(jax.random.key(seed))
    state = training.init_state(initial_model(create, model_rng), optimizer, rng=dropout_rng)
    losses, times = [], []
    for n in range(config.steps):
        start = time.perf_counter()
        state, metrics = step(state, source.batch(seed, n, config.batch_size))
        losses.append(float(metrics["loss"]))  # waits for the step, so that its time is measured
        times.append(time.perf_counter() - start)
    return TrainedModel(state.model, np.array(losses), float(np.median(times)))


def count_parameters(model: Any) -> int:
    """Number of parameters of a model."""
    return sum(x.size for x in jax.tree.leaves(model))


def truncate_at_stop(rows: np.ndarray, stop: int) -> list[list[int]]:
    """Generated rows up to their first stop token, without it."""
    listed: Sequence[list[int]] = np.asarray(rows).tolist()
    return [row[: row.index(stop)] if stop in row else row for row in listed]
