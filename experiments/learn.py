"""Training from several seeds by the library's step, with one compilation, for every experiment that trains."""

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
class Schooling:
    """How long and how fast, and from which starts: Adam, its rate on a cosine behind a warmup."""

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 2e-3
    seeds: tuple[int, ...] = (0, 1, 2)


class Learned(NamedTuple):
    """A trained model, its loss at each step, and the median time of a step in seconds."""

    model: Any
    losses: np.ndarray
    seconds: float


@cache
def _batch_type(fields: tuple[str, ...]) -> Any:
    """One type for equal fields: a batch of another type would be another pytree, and compile every program again."""
    return namedtuple("Batch", fields)


class Rows:
    """Arrays with one leading axis, as a source of batches: rows are drawn with replacement, by seed and step."""

    def __init__(self, **arrays: Any) -> None:
        self.rows = _batch_type(tuple(arrays))(*map(np.asarray, arrays.values()))

    def batch(self, seed: int, step: int, batch_size: int) -> Any:
        """A named tuple of the arrays' rows."""
        numbers = np.random.default_rng((seed, step)).integers(len(self.rows[0]), size=batch_size)
        return jax.tree.map(lambda x: x[numbers], self.rows)


def learn(
    create: Callable[[jax.Array], Any],
    source: Any,
    schooling: Schooling,
    loss: Callable[..., training.Losses] = training.seq2seq_loss,
) -> list[Learned]:
    """The same model from every seed, which gives the start, the order of the batches and the dropout.

    Args:
        create: makes the model from a random key.
        source: has `batch(seed, step, batch_size)`.
        schooling: steps, rate, seeds.
        loss: as `training.make_train_step` takes it.

    Returns:
        One `Learned` for each seed.
    """
    optimizer, step = _optimizer_and_step(adam, schooling.learning_rate, schooling.steps, loss)
    return [_learned(create, optimizer, step, source, schooling, seed) for seed in schooling.seeds]


def adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """The optimizer of a `Schooling`."""
    return training.make_optimizer(training.OptimizerConfig(learning_rate=learning_rate, weight_decay=0.0), steps=steps)


def start(create: Callable[[jax.Array], Any], rng: jax.Array) -> Any:
    """The model before its first step."""
    return jax.jit(create)(rng)


@cache
def _optimizer_and_step(
    make: Callable[[float, int], optax.GradientTransformation],
    learning_rate: float,
    steps: int,
    loss: Callable[..., training.Losses],
) -> tuple[Any, Any]:
    """Kept, so that models of one kind that learn from different sources compile one program."""
    optimizer = make(learning_rate, steps)
    return optimizer, jax.jit(training.make_train_step(optimizer, loss=loss), donate_argnums=0)


def _learned(create: Any, optimizer: Any, step: Any, source: Any, schooling: Schooling, seed: int) -> Learned:
    first, dropout = jax.random.split(jax.random.key(seed))
    state = training.init_state(start(create, first), optimizer, rng=dropout)
    losses, times = [], []
    for n in range(schooling.steps):
        began = time.perf_counter()
        state, metrics = step(state, source.batch(seed, n, schooling.batch_size))
        losses.append(float(metrics["loss"]))
        times.append(time.perf_counter() - began)
    return Learned(state.model, np.array(losses), float(np.median(times)))


def parameters(model: Any) -> int:
    """How many numbers a model has."""
    return sum(x.size for x in jax.tree.leaves(model))


def cut(rows: np.ndarray, stop: int) -> list[list[int]]:
    """Generated rows up to their first stop token."""
    listed: Sequence[list[int]] = np.asarray(rows).tolist()
    return [row[: row.index(stop)] if stop in row else row for row in listed]
