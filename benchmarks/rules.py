"""The cost of each rule relative to scaled_dot and softmax: medians of one run, in which rules are timed in turn.

    python -m benchmarks.rules        about a minute on 2 cores; writes benchmarks/results/rules.json

The dense form at T = 256, forward, and forward with the gradients of query, key and value.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import jax

from benchmarks.turns import both, medians
from jax_attention import attend_heads, mods, normalizers, positions, scores

BATCH, LENGTH, HEADS, SIZE = 2, 256, 8, 64
ROUNDS = 7
RESULTS = Path(__file__).parent / "results" / "rules.json"


def normal(*shape: int) -> jax.Array:
    """Random numbers for the arrays inside rules."""
    return jax.random.normal(jax.random.key(0), shape) * 0.1


def rules() -> dict[str, dict]:
    """Arguments of `attend_heads` by name; the others are compared with the first."""
    hidden = normal(SIZE, 16), normal(SIZE, 16)
    return {
        "scaled_dot, softmax": {},
        "cosine": {"score": scores.cosine(8.0)},
        "general": {"score": scores.general(normal(SIZE, SIZE))},
        "l2": {"score": scores.l2(0.1)},
        "additive (A = 16)": {"score": scores.additive(*hidden, vector=normal(16))},
        "concat": {"score": scores.concat(normal(SIZE), normal(SIZE))},
        "features, proportional": {
            "score": scores.features("elu_plus_one"),
            "normalize": normalizers.proportional(),
        },
        "alibi": {"mods": (mods.alibi(positions.alibi_slopes(HEADS)),)},
        "relative": {"mods": (mods.relative(normal(HEADS, 32)),)},
        "soft_cap": {"mods": (mods.soft_cap(30.0),)},
        "sigmoid": {"normalize": normalizers.sigmoid()},
        "sparsemax": {"normalize": normalizers.sparsemax()},
        "entmax15": {"normalize": normalizers.entmax15()},
    }


def main() -> None:
    """Measure all rules and write the results."""
    arrays = tuple(jax.random.normal(jax.random.key(n), (BATCH, LENGTH, HEADS, SIZE)) for n in range(3))
    runs = {}
    for name, rule in rules().items():
        forward = lambda *x, rule=rule: attend_heads(*x, **rule)  # noqa: E731
        runs |= {(name, "forward"): forward, (name, "both"): both(forward)}
    ms: dict[str, dict[str, float]] = {}
    for (name, label), milliseconds in medians(runs, arrays, ROUNDS).items():
        ms.setdefault(name, {})[label] = milliseconds
    setting = {"batch": BATCH, "T": LENGTH, "heads": HEADS, "head size": SIZE, "rounds": ROUNDS}
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    result = {"setting": setting, "versions": versions, "machine": platform.machine(), "ms": ms}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
