"""results.json says everything, as plain JSON, and refuses what it cannot say."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments import record
from tests.experiments.folder import left_behind

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))


def command(name):
    """The module that `python -m` runs."""
    return importlib.import_module(f"experiments.{name}.__main__")


@dataclasses.dataclass(frozen=True)
class Config:
    """Any."""

    words: tuple[str, ...] = ("写", "代码")


def test_what_is_written(tmp_path):
    numbers = {"array": jnp.arange(3.0) / 3, 1: [np.float32(0.5), np.int64(7), None, True], "small": 1.23456789e-12}
    path = record.write(tmp_path / "new" / "folder", Config(), (0, 1), numbers)
    text = path.read_text(encoding="utf-8")
    assert "写" in text, "readable, not escaped"
    found = json.loads(text)
    assert found["config"] == {"words": ["写", "代码"]}
    assert found["seeds"] == [0, 1]
    assert found["numbers"] == {"array": [0.0, 0.333333, 0.666667], "1": [0.5, 7, None, True], "small": 1.23457e-12}
    assert 0 < found["cpu_seconds"] <= time.process_time()
    assert found["versions"]["jax"] == jax.__version__
    assert found["command"].startswith("python ")


@pytest.mark.parametrize("bad", [float("nan"), jnp.inf, np.array([1.0, np.nan])])
def test_numbers_that_json_cannot_say_leave_no_file(tmp_path, bad):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(tmp_path, Config(), (), {"x": bad})
    assert list(tmp_path.iterdir()) == []


def test_results_and_figures_are_kept_together(tmp_path):
    given = command("soft_lookup").Options(out=tmp_path / "new")
    drawn = {"one": Figure(), "other": Figure()}
    assert record.keep(given, tmp_path, Config(), (), {"x": 1}, lambda: drawn) == tmp_path / "new"
    assert left_behind(tmp_path / "new", "one.png", "other.png") == {"x": 1}


def test_a_figure_that_fails_loses_no_numbers(tmp_path):
    given = command("soft_lookup").Options(out=tmp_path)
    with pytest.raises(ZeroDivisionError):
        record.keep(given, tmp_path, Config(), (), {"x": 1}, lambda: {"one": 1 / 0})
    assert left_behind(tmp_path) == {"x": 1}


def test_the_command_can_be_run_again_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "experiments.x", "--names", "no attention", "dot"])
    path = record.write(tmp_path, Config(), (), {})
    assert (
        json.loads(path.read_text(encoding="utf-8"))["command"] == "python -m experiments.x --names 'no attention' dot"
    )


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "shakespeare_char"])
def test_only_the_plain_command_writes_over_what_is_committed(name):
    found = command(name)
    plain, here = found.Options(), found.HERE
    assert record.place(plain, here) == here == ROOT / "experiments" / name
    assert record.place(replace(plain, out=Path("elsewhere")), here) == Path("elsewhere")
    for changed in ({"small": True}, {"text": Path("other.txt")}, {"pairs": Path("other.tsv")}):
        if set(changed) <= {field.name for field in fields(plain)}:
            assert record.place(replace(plain, **changed), here) == Path(".experiments") / name


def test_a_command_that_needs_an_option_is_never_plain():
    found = command("shakespeare_char")
    assert record.place(found.Options(Path("input.txt")), found.HERE) == Path(".experiments") / "shakespeare_char"
