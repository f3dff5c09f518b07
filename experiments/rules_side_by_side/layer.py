"""Attention as a layer, `nn.Attn(32, 32, 32, 64, 64)`, trained to return one of 32 values: by place, or by content.

By place, the query is the vector of a place, the same in all batches; by content it is one of the 32 keys, which are
new in each row. Both have noise. The target is the value at that place, or of that key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.rules_side_by_side.rules import score_or_module
from experiments.seed_training import TrainingConfig, train_seeds
from jax_attention import nn, training

TASKS = ("by place", "by content")
JOINING = ("location", "concat", "additive", "additive, plain sum")
"""Rules of concatenated vectors; their layer also concatenates the query with what it attended to."""
HIDDEN = 64
"""Hidden units of the additive rules."""
HELD_OUT_STEP = 10**6
"""Step whose batch is held out: no training is that long."""

TRAINING = TrainingConfig(600, 32, 1e-2, (0, 1, 2))


@dataclass(frozen=True)
class LayerConfig:
    """Rules, sizes of the layer, standard deviation of the noise on the query, held-out rows, training."""

    rules: tuple[str, ...] = ("location", "concat", "dot", "general", "additive")
    query_size: int = 32
    key_size: int = 32
    value_size1: int = 32
    value_size2: int = 64
    output_size: int = 64
    noise: float = 0.1
    held_out: int = 256
    schooling: TrainingConfig = TRAINING


class VectorBatch(NamedTuple):
    """Query `[B, 1, Hq]`, key `[B, S, Hk]`, value `[B, S, E]`, target `[B, 1, D]`, and position of the target `[B]`."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    target: np.ndarray
    position: np.ndarray


class VectorBatches:
    """Batches of one of the two tasks."""

    def __init__(self, task: str, config: LayerConfig) -> None:
        self.task, self.config = task, config
        self.place_vectors = np.random.default_rng(0).standard_normal(
            (config.value_size1, config.query_size), np.float32
        )

    def batch(self, seed: int, step: int, batch_size: int) -> VectorBatch:
        """Draw new keys and values; the vectors of places are the same in all batches."""
        config, rng = self.config, np.random.default_rng((seed, step))
        key = rng.standard_normal((batch_size, config.value_size1, config.key_size), np.float32)
        value = rng.standard_normal((batch_size, config.value_size1, config.value_size2), np.float32)
        position, row = rng.integers(config.value_size1, size=batch_size), np.arange(batch_size)
        query = self.place_vectors[position] if self.task == "by place" else key[row, position]
        query = query + config.noise * rng.standard_normal(query.shape, np.float32)
        target = value[row, position, : config.output_size]
        return VectorBatch(query[:, None], key, value, target[:, None], position)


class LayerResults(NamedTuple):
    """Results of one rule, `[seeds]`.

    first_loss, error: mean squared error at the first step and on held-out rows; the answer 0 has 1.
    aim: mean weight on the right position.
    sums_off_by: largest distance of a sum of weights from 1.
    """

    first_loss: np.ndarray
    error: np.ndarray
    aim: np.ndarray
    sums_off_by: np.ndarray


def make_layer(name: str, config: LayerConfig, rng: jax.Array) -> nn.Attn:
    """Layer with the rule of this name; without a score, `nn.Attn` attends by location."""
    rngs = nnx.Rngs(rng)
    score = None if name == "location" else score_or_module(name, config.query_size, config.key_size, HIDDEN, rngs)
    sizes = (config.query_size, config.key_size, config.value_size1, config.value_size2, config.output_size)
    return nn.Attn(*sizes, score=score, join=name in JOINING, rngs=rngs)


def operands(name: str, batch: VectorBatch) -> tuple:
    """Operands of the layer. The rule "location" concatenates the query with its key operand: the query once more."""
    return (batch.query, batch.query if name == "location" else batch.key, batch.value)


@cache
def squared_error(name: str) -> Any:
    """Loss function for `training.make_train_step`: squared errors, mean over features, sum over rows.

    Cached, so that layers of one rule share one compiled step.
    """

    def loss(model: nn.Attn, batch: VectorBatch, rng: Any = None, **_: Any) -> training.Losses:
        errors = jnp.square(model(*operands(name, batch)) - batch.target).mean(-1)
        total, count = errors.sum(), jnp.asarray(errors.size, jnp.float32)
        return training.Losses(total, total, count)

    return loss


def run(config: LayerConfig) -> dict[str, dict[str, LayerResults]]:
    """Train every rule on both tasks."""
    return {task: {name: train(name, VectorBatches(task, config)) for name in config.rules} for task in TASKS}


def train(name: str, source: VectorBatches) -> LayerResults:
    """Train one rule on one task from every seed, and evaluate it on held-out rows."""
    config = source.config
    trained = train_seeds(lambda rng: make_layer(name, config, rng), source, config.schooling, squared_error(name))
    columns = []
    for run, seed in zip(trained, config.schooling.seeds, strict=True):
        batch = source.batch(seed, HELD_OUT_STEP, config.held_out)
        weights, output = map(np.asarray, _weights_and_output(run.model, *operands(name, batch)))
        weights, error = weights[:, 0], np.square(output - batch.target).mean()
        aim = weights[np.arange(len(weights)), batch.position].mean()
        columns.append((run.losses[0], error, aim, np.abs(weights.sum(-1) - 1).max()))
    return LayerResults(*map(np.array, zip(*columns, strict=True)))


@jax.jit
def _weights_and_output(model: nn.Attn, *operands: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model.weights(*operands), model(*operands)
