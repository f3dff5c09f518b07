"""Timing of several JAX functions in one process, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

K = TypeVar("K", bound=Hashable)


def both(forward: Callable[..., jax.Array]) -> Callable[..., Any]:
    """A function that returns sum(sin(output)) and its gradients with respect to three operands."""
    return jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(forward(*x))), (0, 1, 2))


def medians(runs: Mapping[K, Callable[..., Any]], arrays: tuple[jax.Array, ...], rounds: int) -> dict[K, float]:
    """Median milliseconds of each compiled function; every round calls each function once."""
    seconds: dict[K, list[float]] = {key: [] for key in runs}
    programs = {key: jax.jit(run) for key, run in runs.items()}
    for turn in range(rounds + 1):
        for key, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(*arrays))
            if turn:  # the first call compiles
                seconds[key].append(time.perf_counter() - start)
    return {key: round(1e3 * statistics.median(times), 3) for key, times in seconds.items()}
