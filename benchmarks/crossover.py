"""The number of scores from which blockwise attention is faster than the dense form; `attention/choose.py` uses it.

    python -m benchmarks.crossover        about 3 minutes on 2 idle cores; writes benchmarks/results/crossover.json

Heads of 64 in float32, forward, and forward with the gradients of query, key and value; medians of implementations
that are timed in turn.
"""

from __future__ import annotations

import itertools
import json
import platform
from pathlib import Path

import jax

from benchmarks.turns import both, medians
from jax_attention import attend_heads, masks

HEADS, LENGTHS, SIZE = (1, 4, 16, 64), (128, 256, 512, 1024), 64
KINDS = {"full": None, "causal": masks.causal()}
IMPLEMENTATIONS = {"dense": "reference", "tiles": "blockwise"}
ROUNDS = 11
RESULTS = Path(__file__).parent / "results" / "crossover.json"


def measure(heads: int, length: int, kind: str) -> dict:
    """Milliseconds of both implementations for one case."""
    arrays = tuple(jax.random.normal(jax.random.key(n), (length, heads, SIZE)) for n in range(3))
    runs = {}
    for form, name in IMPLEMENTATIONS.items():
        forward = lambda *x, name=name: attend_heads(*x, mask=KINDS[kind], implementation=name)  # noqa: E731
        runs |= {("forward", form): forward, ("both", form): both(forward)}
    milliseconds = medians(runs, arrays, ROUNDS)
    ms = {label: {form: milliseconds[label, form] for form in IMPLEMENTATIONS} for label in ("forward", "both")}
    return {"heads": heads, "T": length, "kind": kind, "ms": ms}


def main() -> None:
    """Measure all cases and write them."""
    cases = [measure(*case) for case in itertools.product(HEADS, LENGTHS, KINDS)]
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    result = {"head size": SIZE, "rounds": ROUNDS, "versions": versions, "machine": platform.machine(), "cases": cases}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
