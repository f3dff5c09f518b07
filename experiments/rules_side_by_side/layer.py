"""Attention as a layer, `nn.Attn(32, 32, 32, 64, 64)`, trained to hand out one of 32 values: by place, or by content.

By place, the query is the fixed vector of a place; by content it is one of the 32 keys, drawn anew for each row. Both
come with noise. The answer is the value of that place, or of that key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.learn import Schooling, learn
from experiments.rules_side_by_side.rules import part_of
from jax_attention import nn, training

TASKS = ("by place", "by content")
JOINED = ("location", "concat", "additive", "additive, plain sum")
"""Rules of the joined vectors, whose layer hands the query on."""
HIDDEN = 64
"""Units of the additive rules."""
HELD_OUT_STEP = 10**6
"""No training comes so far."""


SCHOOLING = Schooling(600, 32, 1e-2, (0, 1, 2))


@dataclass(frozen=True)
class LayerConfig:
    """Sizes, and how much noise is on the query."""

    rules: tuple[str, ...] = ("location", "concat", "dot", "general", "additive")
    query_size: int = 32
    key_size: int = 32
    value_size1: int = 32
    value_size2: int = 64
    output_size: int = 64
    noise: float = 0.1
    held_out: int = 256
    schooling: Schooling = SCHOOLING


class VectorBatch(NamedTuple):
    """`[B, 1, Hq]`, `[B, S, Hk]`, `[B, S, E]`, `[B, 1, D]`, and the place of the answer `[B]`."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    target: np.ndarray
    place: np.ndarray


class Vectors:
    """Batches of one of the two tasks."""

    def __init__(self, task: str, config: LayerConfig) -> None:
        self.task, self.config = task, config
        self.codes = np.random.default_rng(0).standard_normal((config.value_size1, config.query_size), np.float32)

    def batch(self, seed: int, step: int, batch_size: int) -> VectorBatch:
        """Keys and values are new in every batch, the vectors of places are always the same."""
        config, rng = self.config, np.random.default_rng((seed, step))
        key = rng.standard_normal((batch_size, config.value_size1, config.key_size), np.float32)
        value = rng.standard_normal((batch_size, config.value_size1, config.value_size2), np.float32)
        place, each = rng.integers(config.value_size1, size=batch_size), np.arange(batch_size)
        query = self.codes[place] if self.task == "by place" else key[each, place]
        query = query + config.noise * rng.standard_normal(query.shape, np.float32)
        target = value[each, place, : config.output_size]
        return VectorBatch(query[:, None], key, value, target[:, None], place)


class Judged(NamedTuple):
    """Mean squared errors `[seeds]` (1 is that of answering 0), weight at the right place, worst sum of weights - 1."""

    first_loss: np.ndarray
    error: np.ndarray
    aim: np.ndarray
    sums_off_by: np.ndarray


def layer_of(name: str, config: LayerConfig, rng: jax.Array) -> nn.Attn:
    """By location the layer has its own rule; else it gets a score between query and keys."""
    rngs = nnx.Rngs(rng)
    score = None if name == "location" else part_of(name, config.query_size, config.key_size, HIDDEN, rngs)
    sizes = (config.query_size, config.key_size, config.value_size1, config.value_size2, config.output_size)
    return nn.Attn(*sizes, score=score, join=name in JOINED, rngs=rngs)


def operands(name: str, batch: VectorBatch) -> tuple:
    """By location a query is paired with one row of its own, so it stands for the keys too."""
    return (batch.query, batch.query if name == "location" else batch.key, batch.value)


@cache
def squared_error(name: str) -> Any:
    """The loss of a layer, as `training.make_train_step` takes it: the mean over features, summed over rows."""

    def loss(model: nn.Attn, batch: VectorBatch, rng: Any = None, **_: Any) -> training.Losses:
        errors = jnp.square(model(*operands(name, batch)) - batch.target).mean(-1)
        total, count = errors.sum(), jnp.asarray(errors.size, jnp.float32)
        return training.Losses(total, total, count)

    return loss


def run(config: LayerConfig) -> dict[str, dict[str, Judged]]:
    """Both tasks with every rule."""
    return {task: {name: train(name, Vectors(task, config)) for name in config.rules} for task in TASKS}


def train(name: str, source: Vectors) -> Judged:
    """One rule on one task, from every seed, judged on rows that come after any training."""
    config = source.config
    learned = learn(lambda rng: layer_of(name, config, rng), source, config.schooling, squared_error(name))
    columns = []
    for run, seed in zip(learned, config.schooling.seeds, strict=True):
        batch = source.batch(seed, HELD_OUT_STEP, config.held_out)
        weights, output = map(np.asarray, _weights_and_output(run.model, *operands(name, batch)))
        weights, error = weights[:, 0], np.square(output - batch.target).mean()
        aim = weights[np.arange(len(weights)), batch.place].mean()
        columns.append((run.losses[0], error, aim, np.abs(weights.sum(-1) - 1).max()))
    return Judged(*map(np.array, zip(*columns, strict=True)))


@jax.jit
def _weights_and_output(model: nn.Attn, *operands: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.weights(*operands), model(*operands)
