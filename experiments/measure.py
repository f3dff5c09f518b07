"""Cost measurements: times of several functions in the same rounds, and temporary memory as XLA reports it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_attention import training


class Cost(NamedTuple):
    """Cost of a gradient: its time over that of a base model in the same round, and its temporary MiB."""

    time: float
    mib: float


def time_interleaved(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, np.ndarray]:
    """Seconds `[rounds]` of each call. A round runs all calls, so other load on the machine slows all of them.

    Each call runs once before the first round, which compiles it. The order changes from round to round: a call would
    otherwise always find the caches as the same predecessor left them.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    times: dict[Any, list[float]] = {name: [] for name in calls}
    items = list(calls.items())
    for n in range(rounds):
        for index in np.random.default_rng(n).permutation(len(items)):
            name, call = items[index]
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: np.array(seconds) for name, seconds in times.items()}


def temporary_mib(function: Callable, *operands: Any) -> float:
    """MiB that the compiled function needs besides its operands and results. The function is compiled, not run."""
    # A jitted function caches its trace; a second jit around it would trace the same program again.
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    compiled = jitted.lower(*operands).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 3)


def gradient_costs(models: dict[str, Any], batch: Any, base: str, rounds: int) -> dict[str, Cost]:
    """Cost of the gradient of `training.seq2seq_loss` for every model, on one batch.

    Args:
        models: models by name.
        batch: a batch of `data.Seq2SeqBatches`.
        base: name of the model whose time is 1.
        rounds: rounds of timing; the ratio is the median over them.
    """
    batch = jax.device_put(batch)
    gradient = jax.jit(jax.grad(lambda model: training.seq2seq_loss(model, batch).objective))
    times = time_interleaved({name: lambda model=model: gradient(model) for name, model in models.items()}, rounds)
    return {
        name: Cost(float(np.median(times[name] / times[base])), temporary_mib(gradient, model))
        for name, model in models.items()
    }
