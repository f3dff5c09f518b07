"""Attention beside jax.nn, tokamax and PyTorch on a CPU: forward, and with backward, over lengths, sizes and masks.

    python -m benchmarks.attention --resume             about an hour on 2 idle cores
    python -m benchmarks.attention --lengths 512 4096 --sizes 64 --rounds 3

One batch of 4 heads, float32. Every competitor lives in a process of its own and waits on a pipe while another is
timed; in every round each is timed once in turn, and ratios are of medians over rounds. Before anything is timed, all
outputs and gradients must agree. Who lacks a case, would need more than 6 GiB for it, or is not installed, has null
there and the reason; who is slow gets fewer rounds, and their number is kept. `benchmarks.attention_peers` has the
competitors.

results/attention.json is written after every case, and runs over parts of the grid add up in it: a case is replaced
when it is measured again, or left as it is with `--resume`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
from importlib import metadata
from pathlib import Path

from benchmarks.attention_peers import HEADS, KINDS, MAKERS, PASSES
from benchmarks.worker import Worker, compare, largest_difference, prepare

LENGTHS, SIZES = (128, 512, 1024, 4096, 8192), (32, 64, 128)
TOLERANCE = 2e-5
RESULTS = Path(__file__).parent / "results" / "attention.json"


def setting(*packages: str) -> dict:
    """What must be the same in all cases of a file."""
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {"versions": versions, "machine": platform.machine(), "cores": os.cpu_count()}


def measured(workers: list[Worker], case: tuple[str, int, int], rounds: int) -> dict:
    """One case."""
    kind, length, size = case
    load = round(os.getloadavg()[0], 1)
    prepare(workers, case)
    differences = {label: largest_difference(workers, label, TOLERANCE) for label in PASSES}
    result: dict = {"kind": kind, "T": length, "H": size, "load before": load, "largest difference": differences}
    return result | {label: compare(workers, label, rounds) for label in PASSES}


def earlier(path: Path, here: dict) -> dict[tuple, dict]:
    """The cases of a file, which must come from the same setting."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if {name: found.get(name) for name in here} != here:
        raise SystemExit(
            f"{path} was measured elsewhere or with other versions: remove it, or choose another --output."
        )
    return {_place(case): case for case in found["cases"]}


def _place(case: dict) -> tuple:
    return case["T"], case["H"], case["kind"]


def keep(path: Path, here: dict, cases: dict[tuple, dict]) -> None:
    """All cases in order."""
    order = lambda case: (case["T"], case["H"], KINDS.index(case["kind"]))  # noqa: E731
    rows = sorted(cases.values(), key=order)
    path.write_text(json.dumps(here | {"cases": rows}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--competitors", nargs="+", choices=tuple(MAKERS), default=tuple(MAKERS), help="ours first")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resume", action="store_true", help="leave out what the file has already")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    here = {"heads": HEADS} | setting("jax", "tokamax", "torch")
    cases = earlier(options.output, here)
    workers = [Worker("benchmarks.attention_peers", name) for name in options.competitors]
    for length, size, kind in itertools.product(options.lengths, options.sizes, options.kinds):
        if options.resume and (length, size, kind) in cases:
            continue
        case = measured(workers, (kind, length, size), options.rounds)
        cases[_place(case)] = case
        keep(options.output, here, cases)
        print(kind, length, size, *(case[label]["ratio"] for label in PASSES), flush=True)
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()
