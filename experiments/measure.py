"""What something costs: time next to others in the same rounds, and temporary memory by XLA's own figure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_attention import training


class Cost(NamedTuple):
    """Of a gradient: its time over that of another model in the same round, and its temporary MiB."""

    time: float
    mib: float


def interleaved(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, np.ndarray]:
    """Seconds `[rounds]` of each call: a round calls all of them, so that what else the machine does hits all.

    Before the first round each is called once, which compiles it; every round has an order of its own.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for number in np.random.default_rng(turn).permutation(len(calls)):
            name, call = list(calls.items())[number]
            began = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - began)
    return {name: np.array(taken) for name, taken in times.items()}


def temporary(function: Callable, *operands: Any) -> float:
    """MiB that the compiled function needs beside its operands and results; nothing is run."""
    # A function that is jitted already keeps its trace; another jit around it would trace the same program again.
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    compiled = jitted.lower(*operands).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 3)


def gradients(models: dict[str, Any], batch: Any, base: str, rounds: int) -> dict[str, Cost]:
    """The gradient of `training.seq2seq_loss` for every model, on one batch.

    Args:
        models: by name.
        batch: of `data.Seq2SeqBatches`.
        base: the name whose time is 1.
        rounds: of timing; the ratio is the median over them.
    """
    batch = jax.device_put(batch)
    gradient = jax.jit(jax.grad(lambda model: training.seq2seq_loss(model, batch).objective))
    times = interleaved({name: lambda model=model: gradient(model) for name, model in models.items()}, rounds)
    return {
        name: Cost(float(np.median(times[name] / times[base])), temporary(gradient, model))
        for name, model in models.items()
    }
