"""Reversing and recalling with a rule: training, accuracy on rows that were not trained on, and the alignment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.learn import Schooling, learn
from experiments.rules_side_by_side.rules import reader
from jax_attention import data, models

TRAINED_SEED, HELD_OUT_SEED = 1, 2


@dataclass(frozen=True)
class TaskConfig:
    """A task of `data.tasks`, its training and its rows."""

    name: str
    length: int
    vocabulary: int
    schooling: Schooling
    rows: int = 20_000
    held_out: int = 1000


class Judged(NamedTuple):
    """One rule on one task; leading axes are the seeds.

    tokens: share of right tokens, given the right ones before, `[seeds]`.
    sequences: share of rows whose every token is right, `[seeds]`.
    aim: mean weight at the place of the token that is to be written next, `[seeds]`; None without attention.
    spread: how far the weights of one row's queries are from each other, at most, over all rows, `[seeds]`.
    last_loss: mean of the last 20 steps, `[seeds]`.
    maps: of the first held-out row, `[seeds, T, S]`, or None.
    source: its tokens.
    """

    tokens: np.ndarray
    sequences: np.ndarray
    aim: np.ndarray | None
    spread: np.ndarray | None
    last_loss: np.ndarray
    maps: np.ndarray | None
    source: np.ndarray


def rows(config: TaskConfig) -> tuple[data.Seq2SeqBatches, data.Seq2SeqBatch]:
    """Pairs to train on, and a batch of others: no source of it is among the first."""
    make = getattr(data.tasks, config.name)
    trained = make(np.random.default_rng(TRAINED_SEED), config.rows, config.length, config.vocabulary)
    others = make(np.random.default_rng(HELD_OUT_SEED), 2 * config.held_out, config.length, config.vocabulary)
    known = {tuple(source) for source in trained[0]}
    new = [pair for pair in zip(*others, strict=True) if tuple(pair[0]) not in known][: config.held_out]
    ends = {"start": config.vocabulary, "stop": config.vocabulary + 1, "multiple": 1}
    held_out = data.Seq2SeqBatches(*zip(*new, strict=True), **ends)
    return data.Seq2SeqBatches(*trained, **ends), next(held_out.evaluation_batches(len(new)))


def places(config: TaskConfig, source: np.ndarray) -> np.ndarray:
    """Where each token of the target stands in the source `[B, S]`, the stop left out: `[B, n]`."""
    if config.name == "reverse":
        return np.broadcast_to(np.arange(config.length)[::-1], source.shape)
    asked = (source[:, : 2 * config.length : 2] == source[:, -1:]).argmax(-1)
    return 2 * asked[:, None] + 1


@partial(jax.jit, static_argnames="maps")
def judge(model: Any, batch: data.Seq2SeqBatch, maps: bool) -> tuple[jax.Array, jax.Array | None]:
    """Which tokens are likeliest where they should be `[B, T]`, and the alignment `[B, T, S]`."""
    capture = models.Capture(cross="all") if maps else None
    output = model(batch.source, batch.tokens, source_positions=batch.source_positions, capture=capture)
    found = output.captured.cross[0][:, 0] if maps else None
    return jnp.argmax(output.logits, axis=-1) == batch.targets, found


def run(config: TaskConfig, names: tuple[str, ...], width: int) -> dict[str, Judged]:
    """The task with every rule, from every seed."""
    trained, held_out = rows(config)
    longest = held_out.source.shape[1]
    found = {}
    for name in names:
        learned = learn(reader(name, config.vocabulary, longest, width), trained, config.schooling)
        one_by_one = [judged(config, name, run.model, held_out) for run in learned]
        losses = np.array([run.losses[-20:].mean() for run in learned])
        columns = [None if column[0] is None else np.array(column) for column in zip(*one_by_one, strict=True)]
        tokens, sequences, aim, spread, maps = columns
        found[name] = Judged(tokens, sequences, aim, spread, losses, maps, held_out.source[0])
    return found


def judged(config: TaskConfig, name: str, model: Any, batch: data.Seq2SeqBatch) -> tuple:
    """Tokens, sequences, aim, spread and the first map of one model."""
    right, maps = jax.device_get(judge(model, batch, name != "no attention"))
    shares = right.mean(), right.all(-1).mean()
    if maps is None:
        return *shares, None, None, None
    aims = places(config, batch.source)
    aim = np.take_along_axis(maps[:, : aims.shape[1]], aims[..., None], axis=-1).mean()
    return *shares, aim, np.abs(maps - maps[:, :1]).max(), maps[0]
