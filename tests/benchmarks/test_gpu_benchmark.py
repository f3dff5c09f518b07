"""A tiny GPU benchmark runs as a whole on a CPU; competitors that need a GPU are recorded with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.competitors import COMPETITORS
from benchmarks.gpu.measure import Results

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_smoke(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Nothing is left.\n")
    results_json = json.loads(output.read_text())
    assert results_json["about"]["device"] == "cpu"
    assert sorted(str(entry["right"]) for entry in results_json["correctness"].values()) == ["None", "True", "True"]
    competitors = results_json["speed"]["causal T=32 H=16 float32"]["competitors"]
    assert list(competitors) == list(COMPETITORS)
    timed = {name for name, entry in competitors.items() if entry.get("ms")}
    assert timed >= {"jax_attention", "jax.nn xla"}
    assert "NVIDIA GPU" in competitors["jax_attention cudnn"]["failed"]
    assert "needs a GPU" in competitors["torch flex"]["failed"]
    assert all(entry.get("failed") or entry["difference"] < 1e-5 for entry in competitors.values())
    results = Results(output, results_json["about"])
    cases = [(name, lambda: 1 / 0) for name in results_json["correctness"]] + [("new", lambda: {"right": True})]
    assert results.run_missing("correctness", cases, end=0) == 1
    assert results.run_missing("correctness", cases, end=time.monotonic() + 60) == 0
    assert json.loads(output.read_text())["correctness"]["new"] == {"right": True}
