"""On a GPU: is it right, and how fast beside cuDNN, XLA and PyTorch's kernels?

    python -m benchmarks.gpu --part correctness
    python -m benchmarks.gpu --part speed --lengths 1024 4096 --dtypes bfloat16
    python -m benchmarks.gpu --smoke                      everything, tiny, on a CPU

Results are written after every case. A call stops beginning new cases after `--minutes`; the next call goes on where it
stopped, so repeat it until it says that nothing is left. What a competitor cannot do is recorded with its own words.

Correctness: every rule of the library against float64 (correctness.py). Speed: at least 8,192 tokens of width
1,024. JAX lives in one process and PyTorch in another. Outputs and gradients are compared first, and who differs is not
timed; then in every round each is timed once in turn, over enough runs for 20 ms. Medians over rounds. Memory is XLA's
plan (temporaries and outputs), or PyTorch's peak.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.gpu.cases import DTYPES, KINDS, TOLERANCE, Case, case_of
from benchmarks.gpu.competitors import COMPETITORS
from benchmarks.gpu.process import Worker, driver, work

LENGTHS, SIZES = (1024, 4096, 8192, 16384), (64, 128)
PASSES = ("forward", "forward and backward")
RESULTS = Path(__file__).parents[1] / "results" / "gpu.json"


class Results:
    """A JSON file that is whole after every entry."""

    def __init__(self, path: Path, about: dict):
        self.path = path
        self.found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"about": about}
        if self.found["about"] != about:
            raise SystemExit(f"{path} has figures of another device or version; give another --output.")

    def add(self, part: str, name: str, entry: dict) -> None:
        """One entry more."""
        self.found.setdefault(part, {})[name] = entry
        whole = self.path.with_suffix(".part")
        whole.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        whole.replace(self.path)

    def missing(self, part: str, cases: Iterable[tuple[str, Callable[[], dict]]], end: float) -> int:
        """Measure what is not there yet, until the time is up; how many are left."""
        left = [(name, run) for name, run in cases if name not in self.found.get(part, {})]
        while left and time.monotonic() < end:
            name, run = left.pop(0)
            self.add(part, name, run())
            print(name, summary(self.found[part][name]), flush=True)
        return len(left)


def summary(entry: dict) -> str:
    """An entry in one line."""
    if "competitors" not in entry:
        return entry.get("failed") or ("right" if entry["right"] else f"WRONG {entry['errors']}")
    shown = []
    for name, found in entry["competitors"].items():
        times = [f"{found['ms'][what]:.2f}" for what in PASSES if what in found.get("ms", {})]
        shown.append(f"{name}: {' / '.join(times) or 'no'}")
    return ", ".join(shown)


def speed(workers: dict[str, Worker], case: Case, rounds: int) -> dict:
    """Milliseconds, memory, differences and failures of every competitor."""
    found = prepared(workers, case)
    for entry in found.values():
        if "failed" not in entry and not entry["difference"] <= TOLERANCE[case.dtype]:
            entry["failed"] = f"differs by {entry['difference']:.1e}; not timed"
    seconds: dict = {name: {what: [] for what in PASSES} for name in found}
    for what in PASSES:
        for _ in range(rounds):
            for name, entry in found.items():
                if "failed" in entry:
                    continue
                times = min(50, math.ceil(0.02 / max(entry["seconds"][what], 1e-6)))
                answer = workers[COMPETITORS[name][0]].order(what=what, name=name, times=times)
                entry.update({} if "seconds" in answer else answer)
                seconds[name][what].append(answer.get("seconds"))
    for worker in workers.values():
        worker.order(what="forget")
    for name, entry in found.items():
        entry.pop("seconds", None)
        if "failed" not in entry:
            entry["ms"] = {what: round(1e3 * statistics.median(x), 4) for what, x in seconds[name].items()}
    return {**case._asdict(), "rounds": rounds, "competitors": found}


def prepared(workers: dict[str, Worker], case: Case) -> dict[str, dict]:
    """Every competitor ready, or the reason why not; those who lost their process to another are prepared again."""
    found: dict[str, dict] = {}
    lives: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = str(Path(folder) / "base.npz")
        for _ in range(2):
            for name, (library, _) in COMPETITORS.items():
                worker = workers[library]
                if name not in found or ("failed" not in found[name] and lives[name] != worker.lives):
                    found[name] = worker.order(what="prepare", name=name, case=case, base=base)
                    lives[name] = worker.lives
    return found


def parse() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("correctness", "speed"), help="both if left out")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--smoke", action="store_true", help="one tiny case of each part, on any device")
    options = parser.parse_args()
    if options.smoke:
        options.lengths, options.sizes, options.dtypes, options.rounds = (32,), (16,), ("float32",), 1
        options.kinds = options.kinds if len(options.kinds) < len(KINDS) else ("causal",)
    return options


def main() -> None:
    """Measure what is missing, print, write."""
    options = parse()
    if options.work:
        work(options.work)
        return
    end = time.monotonic() + 60 * options.minutes
    workers = {library: Worker(library) for library in ("jax", "torch")}
    about = {"python": platform.python_version(), "machine": platform.machine(), "driver": driver()}
    for worker in workers.values():
        about |= worker.order(what="about")
    results, left = Results(options.output, about), 0
    if options.part != "speed":
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        from benchmarks.gpu.correctness import SMOKE, checks

        wanted = [(name, run) for name, run in checks(options.smoke) if name in SMOKE or not options.smoke]
        left += results.missing("correctness", wanted, end)
    if options.part != "correctness":
        cases = [
            case_of(kind, length, size, dtype, options.smoke)
            for dtype in options.dtypes
            for size in options.sizes
            for length in options.lengths
            for kind in options.kinds
        ]
        runs = [(case.name, lambda case=case: speed(workers, case, options.rounds)) for case in cases]
        left += results.missing("speed", runs, end)
    for worker in workers.values():
        worker.close()
    print(f"{left} cases are left: run it again." if left else "Nothing is left.")


if __name__ == "__main__":
    main()
