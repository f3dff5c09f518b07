"""What does the dense reference cost beside jax.nn and PyTorch? Ratios of medians, interleaved in one run.

    python -m benchmarks.dense        about 2 minutes on 2 cores; writes benchmarks/results/dense.json

Every round times each competitor once, in turn, so that noise of the machine falls on all of them alike. A ratio above
1 means that the peer took longer than we did. Forward is the output; backward is output and gradients of q, k and v.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's idle threads would spin on cores that others time on

import jax
import jax.numpy as jnp
import numpy as np
import torch

import jax_attention
from jax_attention import masks, mods, normalizers, positions, scores

BATCH, HEADS, SIZE = 2, 8, 64
LENGTHS = (64, 256, 1024)
ROUNDS = 15
RESULTS = Path(__file__).parent / "results" / "dense.json"


def operands(length: int) -> tuple[np.ndarray, ...]:
    """Query, key and value `[B, T, N, H]`."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((BATCH, length, HEADS, SIZE), dtype=np.float32) for _ in range(3))


def of_jax(fn: Callable, arrays: tuple[np.ndarray, ...], backward: bool) -> Callable[[], None]:
    """A compiled, blocking call."""
    inputs = tuple(map(jnp.asarray, arrays))
    run = jax.jit(jax.grad(lambda q, k, v: fn(q, k, v).sum(), argnums=(0, 1, 2)) if backward else fn)
    return lambda: jax.block_until_ready(run(*inputs))


def of_torch(causal: bool, arrays: tuple[np.ndarray, ...], backward: bool) -> Callable[[], None]:
    """PyTorch's fused CPU attention on the same numbers, in its own layout."""
    tensors = [torch.tensor(x).transpose(1, 2).contiguous().requires_grad_(backward) for x in arrays]

    def run() -> None:
        out = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)
        if backward:
            torch.autograd.grad(out.sum(), tensors)

    return run


def medians(competitors: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turn."""
    for run in competitors.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(rounds):
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def peers(length: int, causal: bool, backward: bool) -> dict[str, float]:
    """Ours, jax.nn and PyTorch on scaled dot-product attention."""
    arrays = operands(length)
    mask = masks.causal() if causal else None
    return medians(
        {
            "jax_attention": of_jax(lambda *x: jax_attention.attend_heads(*x, mask=mask), arrays, backward),
            "jax.nn": of_jax(lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal), arrays, backward),
            "torch": of_torch(causal, arrays, backward),
        },
        ROUNDS,
    )


def rules(length: int) -> dict[str, float]:
    """What the other rules cost: forward of each at one length."""
    rng = np.random.default_rng(1)
    array = lambda *shape: jnp.asarray(rng.standard_normal(shape, dtype=np.float32))  # noqa: E731
    slopes = positions.alibi_slopes(HEADS)
    options = {
        "scaled_dot": {},
        "cosine": {"score": scores.cosine(8.0)},
        "l2": {"score": scores.l2(0.1)},
        "additive (A = 16)": {"score": scores.additive(array(SIZE, 16), array(SIZE, 16), vector=array(16))},
        "concat": {"score": scores.concat(array(SIZE), array(SIZE))},
        "alibi": {"mods": (mods.alibi(slopes),)},
        "relative": {"mods": (mods.relative(array(HEADS, 32)),)},
        "soft_cap": {"mods": (mods.soft_cap(30.0),)},
        "sigmoid": {"normalize": normalizers.sigmoid()},
        "sparsemax": {"normalize": normalizers.sparsemax()},
        "entmax15": {"normalize": normalizers.entmax15()},
    }
    arrays = operands(length)
    runs = {
        name: of_jax(lambda *x, rule=rule: jax_attention.attend_heads(*x, **rule), arrays, False)
        for name, rule in options.items()
    }
    return medians(runs, ROUNDS // 3)


def main() -> None:
    """Measure, print, and keep."""
    rows = []
    for length in LENGTHS:
        for causal in (False, True):
            for backward in (False, True):
                seconds = peers(length, causal, backward)
                ours = seconds["jax_attention"]
                row = {
                    "T": length,
                    "causal": causal,
                    "pass": "forward+backward" if backward else "forward",
                    "milliseconds": {name: round(1e3 * s, 3) for name, s in seconds.items()},
                    "ratio": {name: round(s / ours, 2) for name, s in seconds.items() if name != "jax_attention"},
                }
                rows.append(row)
                print(
                    f"T={length:<5} causal={causal!s:<5} {row['pass']:<17} {row['milliseconds']} ratio {row['ratio']}"
                )
    cost = {name: round(1e3 * s, 2) for name, s in rules(256).items()}
    print("rules at T=256, forward, ms:", cost)
    versions = {"python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__}
    setting = {"batch": BATCH, "heads": HEADS, "head size": SIZE, "dtype": "float32", "rounds": ROUNDS}
    device = {"machine": platform.machine(), "device": jax.devices()[0].device_kind, "threads": torch.get_num_threads()}
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"setting": setting, "versions": versions, **device, "peers": rows, "rules at T=256 (ms)": cost}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
