"""Attention compared with jax.nn, tokamax and PyTorch on a CPU: forward and backward, over lengths, sizes and masks.

    python -m benchmarks.attention --resume             about an hour on 2 idle cores
    python -m benchmarks.attention --lengths 512 4096 --sizes 64 --rounds 3

One batch of 4 heads, float32. Every competitor (see `benchmarks.attention_peers`) runs in a separate process and waits
on a pipe while another is timed. In every round each is timed once in turn, and ratios are those of medians over
rounds. Before anything is timed, all outputs and gradients must agree. A competitor that lacks a case, would need more
than 6 GiB for it, or is not installed, has null there, with the reason. A slow one gets fewer rounds; their number is
stored.

results/attention.json is written after every case and accumulates the cases of all runs: a case that is measured again
replaces the old one, or is skipped with `--resume`.
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
"""Largest allowed difference in float32 over 1 + the largest entry; the measured ones are at most 1.3e-6."""
RESULTS = Path(__file__).parent / "results" / "attention.json"


def setting(*packages: str) -> dict:
    """Versions and machine; they must be the same for all cases of a file."""
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {"versions": versions, "machine": platform.machine(), "cores": os.cpu_count()}


def measure(workers: list[Worker], case: tuple[str, int, int], rounds: int) -> dict:
    """Measure one case with all competitors."""
    kind, length, size = case
    load = round(os.getloadavg()[0], 1)
    prepare(workers, case)
    differences = {label: largest_difference(workers, label, TOLERANCE) for label in PASSES}
    result: dict = {"kind": kind, "T": length, "H": size, "load before": load, "largest difference": differences}
    return result | {label: compare(workers, label, rounds) for label in PASSES}


def load_cases(path: Path, here: dict) -> dict[tuple, dict]:
    """The cases of a results file, by key; they must have been measured with the same setting."""
    if not path.exists():
        return {}
    results = json.loads(path.read_text(encoding="utf-8"))
    if {name: results.get(name) for name in here} != here:
        raise SystemExit(
            f"{path} was measured elsewhere or with other versions: remove it, or choose another --output."
        )
    return {_case_key(case): case for case in results["cases"]}


def _case_key(case: dict) -> tuple:
    return case["T"], case["H"], case["kind"]


def save_cases(path: Path, here: dict, cases: dict[tuple, dict]) -> None:
    """Write all cases in order."""
    order = lambda case: (case["T"], case["H"], KINDS.index(case["kind"]))  # noqa: E731
    rows = sorted(cases.values(), key=order)
    path.write_text(json.dumps(here | {"cases": rows}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print and write the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--competitors", nargs="+", choices=tuple(MAKERS), default=tuple(MAKERS), help="jax_attention first"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resume", action="store_true", help="skip cases that the file has already")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    here = {"heads": HEADS} | setting("jax", "tokamax", "torch")
    cases = load_cases(options.output, here)
    workers = [Worker("benchmarks.attention_peers", name) for name in options.competitors]
    for length, size, kind in itertools.product(options.lengths, options.sizes, options.kinds):
        if options.resume and (length, size, kind) in cases:
            continue
        case = measure(workers, (kind, length, size), options.rounds)
        cases[_case_key(case)] = case
        save_cases(options.output, here, cases)
        print(kind, length, size, *(case[label]["ratio"] for label in PASSES), flush=True)
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()
