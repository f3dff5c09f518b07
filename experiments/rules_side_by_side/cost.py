"""Cost of a rule: time of a gradient relative to dot in the same round, and temporary memory as XLA reports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import measure, seed_training
from experiments.rules_side_by_side import tasks
from experiments.rules_side_by_side.rules import model_with_rule, score_of
from jax_attention import attend


@dataclass(frozen=True)
class CostConfig:
    """Rounds of timing; length T = S and width of the operands whose memory is measured."""

    rounds: int = 40
    length: int = 1024
    width: int = 64


class Memory(NamedTuple):
    """Temporary MiB of the gradient, with the implementation that the library chooses and with `"reference"`."""

    chosen: float
    reference: float


def relative_times(config: CostConfig, names: tuple[str, ...], width: int, task: tasks.TaskConfig) -> dict[str, float]:
    """Time of a gradient of the task's loss divided by that with "dot", by rule."""
    batches, _ = tasks.make_rows(task)
    all_names = dict.fromkeys(("dot", *names))
    models = {
        name: seed_training.initial_model(model_with_rule(name, task.vocabulary, task.length, width), jax.random.key(0))
        for name in all_names
    }
    batch = batches.batch(0, 0, task.schooling.batch_size)
    costs = measure.gradient_costs(models, batch, "dot", config.rounds)
    return {name: costs[name].time for name in names}


def memory_mib(config: CostConfig, names: tuple[str, ...]) -> dict[str, Memory]:
    """Memory of the gradient with respect to query, key, value and parameters of the rule, by rule; nothing is run."""
    row = jax.ShapeDtypeStruct((config.length, config.width), jnp.float32)
    memory = {}
    for name in names:
        if name != "no attention":
            score = score_of(name, config.width, config.length)
            operands = (row, row, row, score)
            memory[name] = Memory(*(measure.temporary_mib(gradient(how), operands) for how in (None, "reference")))
    return memory


def gradient(implementation: str | None) -> Callable:
    """Gradient function of sum(sin(output)); the sine makes it depend on the output."""

    def total(operands: tuple) -> jax.Array:
        q, k, v, score = operands
        return jnp.sum(jnp.sin(attend(q, k, v, score=score, implementation=implementation)))

    return jax.grad(total)
