"""What a rule costs: time of a gradient next to dot's in the same round, and temporary memory by XLA's own figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import learn, measure
from experiments.rules_side_by_side import tasks
from experiments.rules_side_by_side.rules import reader, score_of
from jax_attention import attend


@dataclass(frozen=True)
class CostConfig:
    """Rounds of timing; T = S and the width of memory's operands."""

    rounds: int = 40
    length: int = 1024
    width: int = 64


class Memory(NamedTuple):
    """Temporary MiB of the gradient, as the library chooses and written out densely."""

    chosen: float
    reference: float


def times(config: CostConfig, names: tuple[str, ...], width: int, task: tasks.TaskConfig) -> dict[str, float]:
    """The time of a gradient of the task's loss over that with "dot", by rule."""
    trained, _ = tasks.rows(task)
    every = dict.fromkeys(("dot", *names))
    found = {name: learn.start(reader(name, task.vocabulary, task.length, width), jax.random.key(0)) for name in every}
    costs = measure.gradients(found, trained.batch(0, 0, task.schooling.batch_size), "dot", config.rounds)
    return {name: costs[name].time for name in names}


def memory(config: CostConfig, names: tuple[str, ...]) -> dict[str, Memory]:
    """Of the gradient to query, key, value and the rule's parameters; nothing is run."""
    row = jax.ShapeDtypeStruct((config.length, config.width), jnp.float32)
    found = {}
    for name in names:
        if name != "no attention":
            score = score_of(name, config.width, config.length)
            found[name] = Memory(
                *(measure.temporary(gradient(how), (row, row, row, score)) for how in (None, "reference"))
            )
    return found


def gradient(implementation: str | None) -> Callable:
    """Of sum(sin(output))."""

    def total(operands: tuple) -> jax.Array:
        q, k, v, score = operands
        return jnp.sum(jnp.sin(attend(q, k, v, score=score, implementation=implementation)))

    return jax.grad(total)
