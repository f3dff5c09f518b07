"""Reversal and recall with an attention rule: training, accuracy on new rows, and attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.rules_side_by_side.rules import model_with_rule
from experiments.seed_training import TrainingConfig, train_seeds
from jax_attention import data, models

TRAINING_SEED, HELD_OUT_SEED = 1, 2


@dataclass(frozen=True)
class TaskConfig:
    """Name of a task of `data.tasks`, its sizes, training, and numbers of rows."""

    name: str
    length: int
    vocabulary: int
    schooling: TrainingConfig
    rows: int = 20_000
    held_out: int = 1000


class TaskResults(NamedTuple):
    """Results of one rule on one task.

    tokens: share of right tokens after right ones, `[seeds]`.
    sequences: share of rows whose every token is right, `[seeds]`.
    aim: mean weight on the source token to be written next, `[seeds]`; None without attention.
    spread: largest difference between the weights of two queries of a row, over all rows, `[seeds]`; None likewise.
    last_loss: mean of the last 20 steps, `[seeds]`.
    maps: weights of the first held-out row, `[seeds, T, S]`; None likewise.
    source: tokens of the first held-out row.
    """

    tokens: np.ndarray
    sequences: np.ndarray
    aim: np.ndarray | None
    spread: np.ndarray | None
    last_loss: np.ndarray
    maps: np.ndarray | None
    source: np.ndarray


def make_rows(config: TaskConfig) -> tuple[data.Seq2SeqBatches, data.Seq2SeqBatch]:
    """Training batches, and one held-out batch whose sources are not in the training set."""
    make = getattr(data.tasks, config.name)
    training = make(np.random.default_rng(TRAINING_SEED), config.rows, config.length, config.vocabulary)
    others = make(np.random.default_rng(HELD_OUT_SEED), 2 * config.held_out, config.length, config.vocabulary)
    known = {tuple(source) for source in training[0]}
    new = [pair for pair in zip(*others, strict=True) if tuple(pair[0]) not in known][: config.held_out]
    ends = {"start": config.vocabulary, "stop": config.vocabulary + 1, "multiple": 1}
    held_out = data.Seq2SeqBatches(*zip(*new, strict=True), **ends)
    return data.Seq2SeqBatches(*training, **ends), next(held_out.evaluation_batches(len(new)))


def target_positions(config: TaskConfig, source: np.ndarray) -> np.ndarray:
    """Position in the source `[B, S]` of each token of the target but the stop, `[B, n]`."""
    if config.name == "reverse":
        return np.broadcast_to(np.arange(config.length)[::-1], source.shape)
    key_index = (source[:, : 2 * config.length : 2] == source[:, -1:]).argmax(-1)
    return 2 * key_index[:, None] + 1


@partial(jax.jit, static_argnames="with_maps")
def right_and_maps(model: Any, batch: data.Seq2SeqBatch, with_maps: bool) -> tuple[jax.Array, jax.Array | None]:
    """Whether each target token is the likeliest `[B, T]`, and the attention weights `[B, T, S]`."""
    capture = models.Capture(cross="all") if with_maps else None
    output = model(batch.source, batch.tokens, source_positions=batch.source_positions, capture=capture)
    maps = output.captured.cross[0][:, 0] if with_maps else None
    return jnp.argmax(output.logits, axis=-1) == batch.targets, maps


def run(config: TaskConfig, names: tuple[str, ...], width: int) -> dict[str, TaskResults]:
    """Train every rule on the task from every seed."""
    training, held_out = make_rows(config)
    longest = held_out.source.shape[1]
    results = {}
    for name in names:
        trained = train_seeds(model_with_rule(name, config.vocabulary, longest, width), training, config.schooling)
        by_seed = [evaluate(config, name, run.model, held_out) for run in trained]
        losses = np.array([run.losses[-20:].mean() for run in trained])
        columns = [None if column[0] is None else np.array(column) for column in zip(*by_seed, strict=True)]
        tokens, sequences, aim, spread, maps = columns
        results[name] = TaskResults(tokens, sequences, aim, spread, losses, maps, held_out.source[0])
    return results


def evaluate(config: TaskConfig, name: str, model: Any, batch: data.Seq2SeqBatch) -> tuple:
    """Tokens, sequences, aim, spread and the first map of one model, as in `TaskResults`."""
    right, maps = jax.device_get(right_and_maps(model, batch, name != "no attention"))
    shares = right.mean(), right.all(-1).mean()
    if maps is None:
        return *shares, None, None, None
    positions = target_positions(config, batch.source)
    aim = np.take_along_axis(maps[:, : positions.shape[1]], positions[..., None], axis=-1).mean()
    return *shares, aim, np.abs(maps - maps[:, :1]).max(), maps[0]
