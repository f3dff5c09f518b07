"""What a rule costs: time of a gradient next to dot's in the same round, and temporary memory by XLA's own figure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.rules_side_by_side import tasks
from experiments.rules_side_by_side.rules import reader, score_of
from jax_attention import attend, training


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


def ratios(config: CostConfig, names: tuple[str, ...], width: int, task: tasks.TaskConfig) -> dict[str, float]:
    """The time of a gradient of the task's loss over that with "dot": medians over rounds that run every rule once."""
    trained, _ = tasks.rows(task)
    batch = jax.device_put(trained.batch(0, 0, task.schooling.batch_size))
    gradient = jax.jit(jax.grad(lambda model: training.pair_loss(model, batch).objective))
    found = {name: reader(name, task.vocabulary, task.length, width)(jax.random.key(0)) for name in names}
    times = interleaved({name: lambda model=model: gradient(model) for name, model in found.items()}, config.rounds)
    return {name: float(np.median(times[name] / times["dot"])) for name in names}


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds `[rounds]` of each call: a round calls all of them, so that what else the machine does hits all."""
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - began)
    return {name: np.array(taken) for name, taken in times.items()}


def memory(config: CostConfig, names: tuple[str, ...]) -> dict[str, Memory]:
    """Of the gradient to query, key, value and the rule's parameters; nothing is run."""
    row = jax.ShapeDtypeStruct((config.length, config.width), jnp.float32)
    found = {}
    for name in names:
        if name != "no attention":
            score = score_of(name, config.width, config.length)
            found[name] = Memory(*(temporary(gradient(how), (row, row, row, score)) for how in (None, "reference")))
    return found


def gradient(implementation: str | None) -> Callable:
    """Of sum(sin(output))."""

    def total(operands: tuple) -> jax.Array:
        q, k, v, score = operands
        return jnp.sum(jnp.sin(attend(q, k, v, score=score, implementation=implementation)))

    return jax.grad(total)


def temporary(function: Callable, operands: Any) -> float:
    """MiB."""
    compiled = jax.jit(function).lower(operands).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 2)
