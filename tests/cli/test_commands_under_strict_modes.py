"""The commands under JAX's strict modes, set as a user sets them: by environment variables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jax_attention import training
from tests.cli.quick_run import QUICK

pytestmark = pytest.mark.slow
NARROW = {
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEBUG_INFS": "1",
}
WIDE = {"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_ENABLE_X64": "1"}


@pytest.mark.parametrize("modes", [NARROW, WIDE], ids=["narrow", "wide"])
def test_train_resume_and_generate(modes, text, run, tmp_path):
    """The losses are those of a run without the modes: a mode refuses, or widens, but changes no number."""

    def command(*arguments):
        command = [sys.executable, "-m", "jax_attention.cli", *map(str, arguments)]
        done = subprocess.run(command, env=os.environ | modes, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "run"
    command("train", text, "--out", folder, *QUICK, "--accumulate", "2")
    command("train", text, "--out", folder, "--resume", "--steps", "8")
    assert command("generate", folder, "--prompt", "the ", "--max-new-tokens", "5", "--greedy").startswith("the ")
    command("generate", folder, "--prompt", "the ", "--max-new-tokens", "5", "--top-k", "3", "--top-p", "0.9")
    losses = [entry["loss"] for entry in training.read_metrics(folder / "metrics.jsonl", "evaluation")]
    plain = [entry["loss"] for entry in training.read_metrics(run / "metrics.jsonl", "evaluation")]
    assert losses[:2] == pytest.approx(plain, rel=1e-2)
