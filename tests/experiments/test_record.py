"""results.json says everything, as plain JSON, and refuses what it cannot say."""

from __future__ import annotations

import dataclasses
import importlib
import json
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import record

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py"))


@dataclasses.dataclass(frozen=True)
class Config:
    """Any."""

    words: tuple[str, ...] = ("写", "代码")


def test_what_is_written(tmp_path):
    numbers = {"array": jnp.arange(3.0) / 3, 1: [np.float32(0.5), np.int64(7), None, True], "small": 1.23456789e-12}
    path = record.write(tmp_path / "new" / "folder", Config(), (0, 1), numbers, 2.5)
    text = path.read_text(encoding="utf-8")
    assert "写" in text, "readable, not escaped"
    found = json.loads(text)
    assert found["config"] == {"words": ["写", "代码"]}
    assert found["seeds"] == [0, 1]
    assert found["numbers"] == {"array": [0.0, 0.333333, 0.666667], "1": [0.5, 7, None, True], "small": 1.23457e-12}
    assert found["seconds"] == 2.5
    assert found["versions"]["jax"] == jax.__version__
    assert found["command"].startswith("python ")


@pytest.mark.parametrize("bad", [float("nan"), jnp.inf, np.array([1.0, np.nan])])
def test_numbers_that_json_cannot_say_leave_no_file(tmp_path, bad):
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(tmp_path, Config(), (), {"x": bad}, 1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "shakespeare_char"])
def test_only_the_plain_command_writes_over_what_is_committed(name):
    command = importlib.import_module(f"experiments.{name}.__main__")
    plain = command.Options()
    assert record.place(plain, command.HERE) == command.HERE == ROOT / "experiments" / name
    assert record.place(replace(plain, out=Path("elsewhere")), command.HERE) == Path("elsewhere")
    for changed in ({"small": True}, {"text": Path("other.txt")}, {"pairs": Path("other.tsv")}):
        if set(changed) <= {field.name for field in fields(plain)}:
            assert record.place(replace(plain, **changed), command.HERE) == Path(".experiments") / name
