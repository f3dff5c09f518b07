"""results.json holds everything as plain JSON, and rejects numbers that JSON cannot hold."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import record


@dataclasses.dataclass(frozen=True)
class Config:
    """Config with Chinese words."""

    words: tuple[str, ...] = ("写", "代码")


def test_results_are_plain_json(tmp_path):
    numbers = {"array": jnp.arange(3.0) / 3, 1: [np.float32(0.5), np.int64(7), None, True], "small": 1.23456789e-12}
    path = record.write_results(tmp_path / "new" / "folder", Config(), (0, 1), numbers)
    text = path.read_text(encoding="utf-8")
    assert "写" in text, "readable, not escaped"
    results = json.loads(text)
    assert results["config"] == {"words": ["写", "代码"]}
    assert results["seeds"] == [0, 1]
    assert results["numbers"] == {"array": [0.0, 0.333333, 0.666667], "1": [0.5, 7, None, True], "small": 1.23457e-12}
    assert 0 < results["cpu_seconds"] <= time.process_time()
    assert results["versions"]["jax"] == jax.__version__
    assert results["command"].startswith("python ")


@pytest.mark.parametrize("bad", [float("nan"), jnp.inf, np.array([1.0, np.nan])])
def test_numbers_that_json_cannot_hold_leave_no_file(tmp_path, bad):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write_results(tmp_path, Config(), (), {"x": bad})
    assert list(tmp_path.iterdir()) == []


def test_the_saved_command_can_be_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "experiments.x", "--names", "no attention", "dot"])
    path = record.write_results(tmp_path, Config(), (), {})
    assert (
        json.loads(path.read_text(encoding="utf-8"))["command"] == "python -m experiments.x --names 'no attention' dot"
    )
