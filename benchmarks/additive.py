"""Additive (Bahdanau) attention: memory and time of the implementations `blockwise` and `reference`, and of Keras.

    python -m benchmarks.additive        about 5 minutes on 2 idle cores; writes results/additive.json

T = S = 1,024 and 4,096, A = 64, one head, float32. Keras' `AdditiveAttention` on JAX has one learned vector and no
projections, so `scores.additive` gets identities for them: both sum vector * tanh(q + k). `gradient` is that of
sum(sin(output)) with respect to query, key, value and vector. Memory is measured twice: as the growth of a fresh
process in its first call, results included, and as XLA's report of temporaries, which omits memory that its fused CPU
kernels allocate while they run. A program that needs more than 6 GiB by XLA's report is compiled but not run. Keras is
optional: `pip install keras`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.attention import setting
from benchmarks.worker import Runs, Worker, compare, compile_jax, largest_difference, prepare

LENGTHS, HIDDEN = (1024, 4096), 64
PASSES = ("forward", "gradient")
TOLERANCE = 2e-5
RESULTS = Path(__file__).parent / "results" / "additive.json"


def operands(length: int) -> list[np.ndarray]:
    """Query, key, value `[T, A]` and the vector `[A]`."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((length, HIDDEN), dtype=np.float32) for _ in range(3)]
    return [*arrays, rng.standard_normal(HIDDEN, dtype=np.float32)]


def library(implementation: str, length: int) -> Runs:
    """This library with a named implementation."""
    import jax.numpy as jnp

    from jax_attention import attend, scores

    same = jnp.eye(HIDDEN)
    rule = lambda vector: scores.additive(same, same, vector=vector)  # noqa: E731
    return _forward_and_gradient(
        lambda q, k, v, vector: attend(q, k, v, score=rule(vector), implementation=implementation), length
    )


def keras(length: int) -> Runs:
    """`keras.layers.AdditiveAttention`, with its vector as an argument."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layer = keras.layers.AdditiveAttention()
    layer.build([(1, length, HIDDEN)] * 3)
    run = lambda q, k, v, vector: layer.stateless_call([vector], [], [q[None], v[None], k[None]])[0][0]  # noqa: E731
    return _forward_and_gradient(run, length)


def _forward_and_gradient(attention: Callable, length: int) -> Runs:
    import jax
    import jax.numpy as jnp

    gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(attention(*x))), (0, 1, 2, 3))
    arrays = [jnp.asarray(x) for x in operands(length)]
    return {label: compile_jax(run, *arrays) for label, run in zip(PASSES, (attention, gradient), strict=True)}


MAKERS = {"blockwise": partial(library, "blockwise"), "reference": partial(library, "reference"), "Keras": keras}


def measure(workers: list[Worker], length: int, rounds: int) -> dict:
    """Measure one length with all competitors."""
    prepare(workers, (length,))
    result: dict = {"T": length, "largest difference": largest_difference(workers, PASSES[0], TOLERANCE)}
    for label in PASSES:
        by_xla = {worker.name: worker.facts.get(label, {}).get("MiB") for worker in workers}
        growth = {
            worker.name: memory_growth(worker.name, length, label) for worker in workers if not worker.missing(label)
        }
        result[label] = compare(workers, label, rounds) | {"XLA MiB": by_xla, "MiB": growth}
    return result


def memory_growth(name: str, length: int, label: str) -> float:
    """MiB by which the peak memory of a fresh process rises in its first call."""
    worker = Worker("benchmarks.additive", name)
    prepare([worker], (length,))
    before = worker.peak()
    worker.seconds(label)
    growth = worker.peak() - before
    worker.close()
    return round(growth, 1)


def main() -> None:
    """Measure, print and write the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    workers, cases = [Worker("benchmarks.additive", name) for name in MAKERS], []
    for length in options.lengths:
        cases.append(measure(workers, length, options.rounds))
        print(json.dumps(cases[-1]), flush=True)
    for worker in workers:
        worker.close()
    results = {"A": HIDDEN} | setting("jax", "keras") | {"cases": cases}
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
