"""Long sequences and derivatives on a CPU: 32,768 tokens, the cost of a window, the cost of jvp and hvp.

    python -m benchmarks.long        about 5 minutes on 2 idle cores; writes results/long.json
    python -m benchmarks.long --parts derivatives --rounds 3

float32, heads of 64, forward with backward unless stated otherwise; results are written part by part. Lengths and
derivatives are timed in turn.

finish        T = 32,768, causal, 8 heads: seconds of one call in a fresh process, and its peak memory
window        256 keys, 4 heads, T = 8,192 and 16,384; PyTorch with a dense mask at 8,192
derivatives   T = 4,096, causal, 4 heads: forward, jvp, gradient, hvp (the tangent of the gradient)
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attention import setting
from benchmarks.worker import PreparedCall, Runs, Worker, compile_jax, prepare, time_in_turn

SIZE, WINDOW = 64, 256
FINISH_LENGTH, WINDOW_LENGTHS, DERIVATIVES_LENGTH = 32768, (8192, 16384), 4096
BOTH = "forward and backward"
RESULTS = Path(__file__).parent / "results" / "long.json"


def operands(length: int, heads: int) -> list[np.ndarray]:
    """Query, key, value `[T, N, H]`."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, heads, SIZE), dtype=np.float32) for _ in range(3)]


def library(case: str, length: int, heads: int) -> Runs:
    """This library: a causal or windowed call, or all `derivatives` of the causal one."""
    import jax
    import jax.numpy as jnp

    from jax_attention import attend_heads, masks

    x = tuple(jnp.asarray(array) for array in operands(length, heads))
    mask = masks.sliding_window(WINDOW) if case == "window" else masks.causal()
    attention = lambda x: attend_heads(*x, mask=mask)  # noqa: E731
    loss = lambda x: jnp.sum(jnp.sin(attention(x)))  # noqa: E731
    if case != "derivatives":
        return {"forward": compile_jax(attention, x), BOTH: compile_jax(jax.value_and_grad(loss), x)}
    functions: dict[str, Callable[[Any], Any]] = {
        "forward": attention,
        "jvp": lambda x: jax.jvp(attention, (x,), (x,)),
        "gradient": jax.grad(loss),
        "hvp": lambda x: jax.jvp(jax.grad(loss), (x,), (x,)),
    }
    return {label: compile_jax(function, x) for label, function in functions.items()}


def torch(case: str, length: int, heads: int) -> Runs:
    """PyTorch's SDPA with the window as a dense mask."""
    import torch

    tensors = (torch.from_numpy(x.swapaxes(0, 1).copy())[None] for x in operands(length, heads))
    q, k, v = (x.requires_grad_() for x in tensors)
    away = torch.arange(length)[:, None] - torch.arange(length)
    mask = (away >= 0) & (away < WINDOW)
    attention = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # noqa: E731

    def forward() -> None:
        with torch.no_grad():
            attention()

    both = lambda: torch.autograd.grad(attention().sin().sum(), (q, k, v))  # noqa: E731
    return {"forward": PreparedCall(forward), BOTH: PreparedCall(both)}


MAKERS = {"jax_attention": library, "torch": torch}


def start_workers(*names: str) -> list[Worker]:
    """Start one process per competitor."""
    return [Worker("benchmarks.long", name) for name in names]


def finish(rounds: int) -> dict:
    """Seconds of the first call after compilation, and peak memory in GiB."""
    (worker,) = start_workers("jax_attention")
    prepare([worker], ("causal", FINISH_LENGTH, 8))
    seconds = worker.seconds(BOTH)
    result = {"T": FINISH_LENGTH, "heads": 8, "seconds": round(seconds, 1), "peak GiB": round(worker.peak() / 2**10, 2)}
    worker.close()
    return result


def window(rounds: int) -> dict:
    """Milliseconds by pass and length, and those of PyTorch at the shorter length."""
    workers = start_workers("jax_attention", "torch", "jax_attention")
    result: dict = {"T": list(WINDOW_LENGTHS), "ms": {}, "longer / shorter": {}, "torch / jax_attention": {}}
    prepare(workers[:2], ("window", WINDOW_LENGTHS[0], 4))
    prepare(workers[2:], ("window", WINDOW_LENGTHS[1], 4))
    for label in ("forward", BOTH):
        short, dense, long = map(statistics.median, time_in_turn([(worker, label) for worker in workers], rounds))
        result["ms"][label] = {"shorter": _ms(short), "longer": _ms(long), "torch, shorter": _ms(dense)}
        result["longer / shorter"][label] = round(long / short, 2)
        result["torch / jax_attention"][label] = round(dense / short, 2)
    for worker in workers:
        worker.close()
    return result


def derivatives(rounds: int) -> dict:
    """Milliseconds of each derivative, and ratios."""
    workers = start_workers("jax_attention")
    prepare(workers, ("derivatives", DERIVATIVES_LENGTH, 4))
    labels = ("forward", "jvp", "gradient", "hvp")
    seconds = time_in_turn([(workers[0], label) for label in labels], rounds)
    ms = {label: _ms(statistics.median(x)) for label, x in zip(labels, seconds, strict=True)}
    workers[0].close()
    ratios = {
        "jvp / forward": round(ms["jvp"] / ms["forward"], 2),
        "hvp / gradient": round(ms["hvp"] / ms["gradient"], 2),
    }
    return {"T": DERIVATIVES_LENGTH, "heads": 4, "ms": ms} | ratios


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 2)


PARTS = {"finish": finish, "window": window, "derivatives": derivatives}


def main() -> None:
    """Measure, print and write the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    results |= setting("jax", "torch")
    for part in options.parts:
        results[part] = PARTS[part](options.rounds)
        print(part, json.dumps(results[part]), flush=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
