"""Measure attention on a GPU: correctness, and speed next to cuDNN, XLA and PyTorch's kernels.

    python -m benchmarks.gpu --part correctness
    python -m benchmarks.gpu --part speed --lengths 1024 4096 --dtypes bfloat16
    python -m benchmarks.gpu --smoke                      everything, tiny, on a CPU

Results are written after every case. A call starts no new case after `--minutes`; the next call continues where it
stopped, so repeat it until it says that nothing is left. The error message of a competitor that cannot run is recorded.

Correctness: every rule of the library against float64 (correctness.py). Speed: at least 8,192 tokens of width 1,024.
JAX and PyTorch run in separate processes. Outputs and gradients are compared first, and a competitor that differs is
not timed; then in every round each is timed once in turn, over enough runs for 20 ms. Figures are medians over rounds.
Memory is the sum of temporaries and outputs that XLA reports, or the peak that PyTorch reports.
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

from benchmarks.gpu.cases import DTYPES, KINDS, TOLERANCE, Case, make_case
from benchmarks.gpu.competitors import COMPETITORS
from benchmarks.gpu.process import Worker, driver_version, serve

LENGTHS, SIZES = (1024, 4096, 8192, 16384), (64, 128)
PASSES = ("forward", "forward and backward")
RESULTS = Path(__file__).parents[1] / "results" / "gpu.json"


class Results:
    """A results file that is complete JSON after every entry."""

    def __init__(self, path: Path, about: dict):
        self.path = path
        self.entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"about": about}
        if self.entries["about"] != about:
            raise SystemExit(f"{path} has figures of another device or version. Choose another --output.")

    def add(self, part: str, name: str, entry: dict) -> None:
        """Add one entry and write the file."""
        self.entries.setdefault(part, {})[name] = entry
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.entries, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def run_missing(self, part: str, cases: Iterable[tuple[str, Callable[[], dict]]], end: float) -> int:
        """Run the cases that have no entry yet, until the time is up; return the number of cases left."""
        left = [(name, run) for name, run in cases if name not in self.entries.get(part, {})]
        while left and time.monotonic() < end:
            name, run = left.pop(0)
            self.add(part, name, run())
            print(name, summary(self.entries[part][name]), flush=True)
        return len(left)


def summary(entry: dict) -> str:
    """One line about an entry."""
    if "competitors" not in entry:
        return entry.get("failed") or ("right" if entry["right"] else f"WRONG {entry['errors']}")
    parts = []
    for name, competitor in entry["competitors"].items():
        times = [f"{competitor['ms'][what]:.2f}" for what in PASSES if what in competitor.get("ms", {})]
        parts.append(f"{name}: {' / '.join(times) or 'no'}")
    return ", ".join(parts)


def speed(workers: dict[str, Worker], case: Case, rounds: int) -> dict:
    """Measure milliseconds, memory, difference or failure of every competitor."""
    entries = prepare(workers, case)
    for entry in entries.values():
        if "failed" not in entry and not entry["difference"] <= TOLERANCE[case.dtype]:
            entry["failed"] = f"differs by {entry['difference']:.1e}; not timed"
    seconds: dict = {name: {what: [] for what in PASSES} for name in entries}
    for what in PASSES:
        for _ in range(rounds):
            for name, entry in entries.items():
                if "failed" in entry:
                    continue
                times = min(50, math.ceil(0.02 / max(entry["seconds"][what], 1e-6)))
                answer = workers[COMPETITORS[name][0]].request(what=what, name=name, times=times)
                entry.update({} if "seconds" in answer else answer)
                seconds[name][what].append(answer.get("seconds"))
    for worker in workers.values():
        worker.request(what="forget")
    for name, entry in entries.items():
        entry.pop("seconds", None)
        if "failed" not in entry:
            entry["ms"] = {what: round(1e3 * statistics.median(x), 4) for what, x in seconds[name].items()}
    return {**case._asdict(), "rounds": rounds, "competitors": entries}


def prepare(workers: dict[str, Worker], case: Case) -> dict[str, dict]:
    """Prepare every competitor; return its facts, or the reason why it cannot run.

    A second pass repeats those whose process was restarted because another competitor crashed it.
    """
    entries: dict[str, dict] = {}
    starts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = str(Path(folder) / "base.npz")
        for _ in range(2):
            for name, (library, _) in COMPETITORS.items():
                worker = workers[library]
                if name not in entries or ("failed" not in entries[name] and starts[name] != worker.starts):
                    entries[name] = worker.request(what="prepare", name=name, case=case, base=base)
                    starts[name] = worker.starts
    return entries


def parse() -> argparse.Namespace:
    """The command-line options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    """Measure the missing cases, print and write them."""
    options = parse()
    if options.work:
        serve(options.work)
        return
    end = time.monotonic() + 60 * options.minutes
    workers = {library: Worker(library) for library in ("jax", "torch")}
    about = {"python": platform.python_version(), "machine": platform.machine(), "driver": driver_version()}
    for worker in workers.values():
        about |= worker.request(what="about")
    results, left = Results(options.output, about), 0
    if options.part != "speed":
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        from benchmarks.gpu.correctness import SMOKE, checks

        selected = [(name, run) for name, run in checks(options.smoke) if name in SMOKE or not options.smoke]
        left += results.run_missing("correctness", selected, end)
    if options.part != "correctness":
        cases = [
            make_case(kind, length, size, dtype, options.smoke)
            for dtype in options.dtypes
            for size in options.sizes
            for length in options.lengths
            for kind in options.kinds
        ]
        runs = [(case.name, lambda case=case: speed(workers, case, options.rounds)) for case in cases]
        left += results.run_missing("speed", runs, end)
    for worker in workers.values():
        worker.close()
    print(f"{left} cases are left: run it again." if left else "Nothing is left.")
