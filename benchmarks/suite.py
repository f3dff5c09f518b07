"""Time and memory of the tests.

    python -m benchmarks.suite test                 runs `make test` and stores its figures
    python -m benchmarks.suite test test-all        several tiers, one after the other

Figures go to `results/suite.json`, for each version of Python, and from there into the tables of README.md and
CONTRIBUTING.md. A test checks that the tables agree with the file.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import psutil

from benchmarks import tables

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "suite.json"
TIERS = ("test", "test-all", "test-long")
"""Targets of the Makefile."""
PACKAGES = ("jax", "flax", "torch", "transformers", "pytest")
CLOSING_LINE = re.compile(r"^(\d+ passed.*) in ([\d.]+)s", re.M)
"""The last line of pytest: number of tests by outcome, and seconds from collection to the end."""
SAMPLING_SECONDS = 5.0
"""Seconds between two readings. A reading stops the process for a moment: once a second it cost 4 % of the machine."""


def memory_of_tree(process: psutil.Process) -> int:
    """Bytes of a process and all of its descendants. Pages that several of them share are counted once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:  # the process ended between the listing and the reading
            continue
    return total


def run_tier(tier: str) -> dict:
    """Run a target of the Makefile; return its closing line, peak memory and the seconds by file."""
    with tempfile.TemporaryDirectory() as folder:
        report, log = Path(folder) / "report.xml", Path(folder) / "log.txt"
        options = f"--junitxml={report} -o junit_family=xunit1"
        environment = {**os.environ, "PYTEST_ADDOPTS": options}
        command = ["make", f"VENV={Path(sys.prefix)}", f"PYTHON={sys.executable}", tier]
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
            peak = 0
            while process.poll() is None:
                peak = max(peak, memory_of_tree(psutil.Process(process.pid)))
                time.sleep(SAMPLING_SECONDS)
        text = log.read_text(encoding="utf-8")
        closing = CLOSING_LINE.search(text)
        if process.returncode != 0 or closing is None:
            sys.exit(f"make {tier} failed, nothing was written:\n{text[-3000:]}")
        files: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            entry = files[case.get("file")]
            entry[0] += 1
            entry[1] += float(case.get("time"))
    slowest_first = sorted(files.items(), key=lambda item: -item[1][1])
    return {
        "closing_line": closing[0],
        "tests": sum(count for count, _ in files.values()),
        "seconds": float(closing[2]),
        "peak_memory_gib": round(peak / 2**30, 2),
        "files": {name: [count, round(seconds, 1)] for name, (count, seconds) in slowest_first},
    }


def main(tiers: list[str]) -> None:
    """Run the tiers and add their figures to those of the other tiers and versions of Python."""
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown or not tiers:
        sys.exit(f"expected some of {', '.join(TIERS)}, got {', '.join(unknown) or 'none'}")
    for tier in tiers:
        figures = run_tier(tier)
        print(f"make {tier}: {figures['closing_line']}, {figures['peak_memory_gib']} GiB")
        results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        name = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        pair = results.setdefault("pairs", {}).setdefault(name, {"tiers": {}})
        pair |= {"versions": {name: version(name) for name in PACKAGES}, "cpus": os.cpu_count()}
        pair["tiers"][tier] = figures
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        tables.main([])  # before the next tier, whose tests compare the tables with the figures


if __name__ == "__main__":
    main(sys.argv[1:])
