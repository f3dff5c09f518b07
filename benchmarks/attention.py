"""Attention beside jax.nn and PyTorch on a CPU: forward, and forward with backward, over lengths, head sizes and masks.

    python -m benchmarks.attention                      about 40 minutes on 2 idle cores
    python -m benchmarks.attention --lengths 512 4096 --sizes 64 --rounds 3

One batch of 4 heads, float32. Every competitor lives in a process of its own and waits on a pipe while another is
timed; in every round each is timed once in turn, and ratios are of medians over rounds. Before anything is timed, all
outputs must agree. PyTorch's `scaled_dot_product_attention` is told `is_causal` where it can be, and gets a dense mask
or bias where it cannot, as its users would write it. Writes results/attention.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HEADS = 4
WINDOW = 256
LENGTHS, SIZES = (128, 512, 1024, 4096, 8192), (32, 64, 128)
KINDS = ("full", "causal", "window", "documents", "alibi", "prefix")
COMPETITORS = ("jax_attention", "jax.nn", "torch")
TOLERANCE = 2e-5
RESULTS = Path(__file__).parent / "results" / "attention.json"

Run = Callable[[], object]


def operands(length: int, size: int) -> list[np.ndarray]:
    """Query, key, value `[T, N, H]`."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, HEADS, size), dtype=np.float32) for _ in range(3)]


def documents(length: int) -> np.ndarray:
    """Segment ids `[T]`: documents of 64 to 1023 tokens."""
    lengths = np.random.default_rng(1).integers(64, 1024, size=length)
    return np.repeat(np.arange(length), lengths)[:length].astype(np.int32)


def slopes() -> np.ndarray:
    """ALiBi's."""
    return 2.0 ** -np.arange(2, 2 * HEADS + 1, 2, dtype=np.float32)


def dense_mask(kind: str, length: int) -> np.ndarray | None:
    """bool `[T, S]`, True = may attend; None for all pairs."""
    q, k = np.arange(length)[:, None], np.arange(length)[None]
    if kind == "documents":
        ids = documents(length)
        return (k <= q) & (ids[:, None] == ids[None])
    masks = {"full": None, "window": (k <= q) & (k > q - WINDOW), "prefix": (k <= q) | (k < length // 4)}
    return masks.get(kind, k <= q)


def ours(kind: str, length: int, size: int) -> tuple[Run, Run]:
    """The library, its implementation chosen by itself."""
    import jax
    import jax.numpy as jnp

    from jax_attention import attend_heads, masks, mods

    ids = jnp.asarray(documents(length))
    rules = {
        "full": {},
        "causal": {"mask": masks.causal()},
        "window": {"mask": masks.sliding_window(WINDOW)},
        "documents": {"mask": masks.causal() & masks.segments(ids)},
        "alibi": {"mask": masks.causal(), "mods": (mods.alibi(slopes()),)},
        "prefix": {"mask": masks.causal() | masks.prefix(length // 4)},
    }
    q, k, v = (jnp.asarray(x) for x in operands(length, size))
    return _timed(jax, lambda q, k, v: attend_heads(q, k, v, **rules[kind]), q, k, v)


def jax_nn(kind: str, length: int, size: int) -> tuple[Run, Run]:
    """`jax.nn.dot_product_attention` with the mask or bias that its users would make."""
    import jax
    import jax.numpy as jnp

    options: dict = {"is_causal": kind in ("causal", "alibi", "window")}
    if kind == "window":
        options["local_window_size"] = (WINDOW - 1, 0)
    if kind in ("documents", "prefix"):
        options["mask"] = jnp.asarray(dense_mask(kind, length))[None, None]
    if kind == "alibi":
        options["bias"] = jnp.asarray(alibi(length))[None]
    q, k, v = (jnp.asarray(x)[None] for x in operands(length, size))
    return _timed(jax, lambda q, k, v: jax.nn.dot_product_attention(q, k, v, **options)[0], q, k, v)


def alibi(length: int) -> np.ndarray:
    """`[N, T, S]`."""
    distance = np.abs(np.arange(length)[:, None] - np.arange(length)[None]).astype(np.float32)
    return -slopes()[:, None, None] * distance


def _timed(jax: object, attention: Callable, *arrays: object) -> tuple[Run, Run]:
    """Forward, and forward with the gradients of all three operands, compiled."""
    forward = jax.jit(attention)
    both = jax.jit(jax.value_and_grad(lambda *x: jax.numpy.sum(jax.numpy.sin(attention(*x))), (0, 1, 2)))
    return lambda: np.asarray(forward(*arrays)), lambda: jax.block_until_ready(both(*arrays))


def torch(kind: str, length: int, size: int) -> tuple[Run, Run]:
    """`scaled_dot_product_attention`."""
    import torch

    q, k, v = (torch.from_numpy(x.swapaxes(0, 1).copy())[None].requires_grad_() for x in operands(length, size))
    options: dict = {"is_causal": True} if kind == "causal" else {}
    if kind in ("window", "documents", "prefix"):
        options["attn_mask"] = torch.from_numpy(dense_mask(kind, length))
    if kind == "alibi":
        bias = np.where(dense_mask("causal", length), alibi(length), -np.inf).astype(np.float32)
        options["attn_mask"] = torch.from_numpy(bias)[None]
    attention = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)  # noqa: E731

    def forward() -> np.ndarray:
        with torch.no_grad():
            return attention()[0].transpose(0, 1).numpy()

    def both() -> None:
        torch.autograd.grad(attention().sin().sum(), (q, k, v))

    return forward, both


MAKERS = {"jax_attention": ours, "jax.nn": jax_nn, "torch": torch}


def work(name: str) -> None:
    """A competitor's process: each line on stdin is a case, to be prepared, or what to time."""
    runs: tuple[Run, Run] | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "case" in order:
            runs = MAKERS[name](*order["case"])
            output = runs[0]()
            np.save(order["output"], output)
            runs[1]()
            answer: object = "ready"
        else:
            start = time.perf_counter()
            for _ in range(order["times"]):
                runs[order["what"]]()
            answer = (time.perf_counter() - start) / order["times"]
        print(json.dumps(answer), flush=True)


class Competitor:
    """A process that waits for orders."""

    def __init__(self, name: str):
        command = [sys.executable, "-m", "benchmarks.attention", "--work", name]
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, **order: object) -> object:
        """Say what to do and wait for the answer."""
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def compare(competitors: list[Competitor], case: tuple[str, int, int], rounds: int) -> dict:
    """Medians in milliseconds, and peers over ours."""
    outputs = []
    for competitor in competitors:
        path = f"/tmp/attention_{os.getpid()}.npy"
        competitor.order(case=case, output=path)
        outputs.append(np.load(path))
        os.unlink(path)
    error = max(float(np.abs(x - outputs[0]).max()) for x in outputs[1:])
    if error > TOLERANCE:
        raise SystemExit(f"{case}: outputs differ by {error:.1e}; nothing was timed.")
    result: dict = {"kind": case[0], "T": case[1], "H": case[2], "largest difference": error}
    times = 8 if case[1] <= 512 else 1
    for what, label in enumerate(("forward", "forward and backward")):
        seconds = {competitor.name: [] for competitor in competitors}
        for _ in range(rounds):
            for competitor in competitors:
                seconds[competitor.name].append(competitor.order(what=what, times=times))
        medians = {name: 1e3 * statistics.median(x) for name, x in seconds.items()}
        own = medians["jax_attention"]
        ratios = {name: round(x / own, 2) for name, x in medians.items() if name != "jax_attention"}
        result[label] = {"ms": {name: round(x, 2) for name, x in medians.items()}, "ratio": ratios}
    return result


def summary(cases: list[dict]) -> dict:
    """Geometric means of the ratios, by kind and over all."""
    found: dict = {}
    for label in ("forward", "forward and backward"):
        for kind in ("all", *KINDS):
            rows = [case[label]["ratio"] for case in cases if kind in ("all", case["kind"])]
            if rows:
                means = {name: round(statistics.geometric_mean(row[name] for row in rows), 2) for name in rows[0]}
                found.setdefault(label, {})[kind] = means
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    import jax
    import torch

    before = os.getloadavg()[:2]
    competitors = [Competitor(name) for name in COMPETITORS]
    cases = []
    for length in options.lengths:
        for size in options.sizes:
            for kind in options.kinds:
                case = compare(competitors, (kind, length, size), options.rounds)
                cases.append(case)
                print(kind, length, size, *(case[x]["ratio"] for x in ("forward", "forward and backward")), flush=True)
    results = {
        "heads": HEADS,
        "rounds": options.rounds,
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load before and after": [round(x, 1) for x in (before[0], os.getloadavg()[0])],
        "geometric means of peer / jax_attention": summary(cases),
        "cases": cases,
    }
    print(json.dumps(results["geometric means of peer / jax_attention"], indent=1))
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
