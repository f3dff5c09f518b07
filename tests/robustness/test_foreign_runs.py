"""Hostile configs of runs: one line of error, whatever is in them."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jax_attention.cli import layer_pattern, run_folder
from jax_attention.cli.__main__ import main
from jax_attention.cli.run_identity import digest
from tests.cli.quick_run import QUICK, TEXT, error_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


class OurError(Exception):
    """An error whose message says what was expected."""


def open_run(folder):
    try:
        run_folder.open_run(folder)
    except (ValueError, TypeError, OSError) as error:
        if ": expected " not in str(error):
            raise
        raise OurError from error


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "fox.txt").write_text(TEXT, encoding="utf-8")
    assert main(["train", str(folder / "fox.txt"), "--out", str(folder / "run"), *QUICK, "--sample-tokens", "0"]) == 0
    return folder / "run"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def change(folder, *path, value):
    """Set one entry of the config."""
    file = folder / "config.json"
    contents = json.loads(file.read_text(encoding="utf-8"))
    place = contents
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    if path[0] in ("model", "settings") and isinstance(contents["run"], dict):  # a stranger can compute digests too
        contents["run"][path[0]] = digest(contents[path[0]])
    file.write_text(json.dumps(contents), encoding="utf-8")


CHANGES = {
    "settings of a newer version": (("settings", "turbo"), True, "expected the settings of this version"),
    "batch size of text": (("settings", "loop", "batch_size"), "4", "= '4'. Use the version"),
    "packed null": (("settings", "packed"), None, "packed = None"),
    "schedule": (("settings", "optimizer", "schedule"), "exec", "schedule = 'exec'"),
    "files of numbers": (("settings", "files"), [1], "(1,). Use the version"),
    "no settings": (("settings",), [], "written by `jax-attention train`"),
    "identity of numbers": (("run",), {"id": 3}, "written by `jax-attention train`"),
    "origin": (("origin",), ["x"], "written by `jax-attention train`"),
    "control characters": (("settings", "\x1b]0;x\x07"), 1, "\\x1b]0;x\\x07"),
    "many layers": (("model", "depth"), 10**9, "expected at most 4,096 layers, got 1,000,000,000"),
    "more layers than arrays": (("model", "depth"), 4000, "got 4,000 layers in config.json for a checkpoint of"),
    "width": (("model", "width"), 2**30, ""),
    "tokenizer": (("tokenizer",), "0" * 16, "expected the tokenizer that the model was trained with"),
    "function of the library": (
        ("model", "mask"),
        {"function": "jax_attention.core.files:new_file", "wrapper": "masks.UserMask"},
        "which is not allowed to run",
    ),
    "adopted": (("run", "adopted"), [[3]], "written by `jax-attention train`"),
    "history": (("history",), 5, "written by `jax-attention train`"),
    "code": (("model", "mask"), {"function": "antigravity:x"}, "which is not allowed to run"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_hostile_config_is_one_line(copy, capsys, name):
    path, value, message = CHANGES[name]
    change(copy, *path, value=value)
    error = error_of(["evaluate", str(copy)], capsys)
    assert message in error
    assert "\x1b" not in error
    assert len(error) < 1000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_entry_may_be_anything(run, tmp_path_factory, data):
    """Opening a run gives the run or a message of this library, never another exception."""
    contents = json.loads((run / "config.json").read_text(encoding="utf-8"))
    place = contents
    while isinstance(place, dict) and place:
        name = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[name], dict) or data.draw(st.booleans()):
            place[name] = data.draw(JSON)
            break
        place = place[name]
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(run / "tokenizer", folder / "tokenizer")
    (folder / "config.json").write_text(json.dumps(contents), encoding="utf-8")
    with contextlib.suppress(OurError):
        open_run(folder)
    shutil.rmtree(folder)


def test_a_pattern_that_never_ends_is_refused_in_time(copy, capsys, monkeypatch):
    monkeypatch.setattr(layer_pattern, "SECONDS", 0.5)
    change(copy, "settings", "lora", value=2)
    change(copy, "settings", "lora_targets", value="^.*kernel$|(.+)+\x1b")
    error = error_of(["evaluate", str(copy)], capsys)
    assert "--lora-targets" in error or "lora_targets" in error
    assert "expected a regular expression that is searched in" in error
    assert "\x1b" not in error


@pytest.mark.parametrize("pattern", ["(" * 5000 + ")" * 5000, "a{99999999999}", "[", "x" * 20_000])
def test_a_pattern_that_is_none_is_one_line(copy, capsys, pattern):
    change(copy, "settings", "lora", value=2)
    change(copy, "settings", "lora_targets", value=pattern)
    error = error_of(["evaluate", str(copy)], capsys)
    assert "expected a regular expression" in error
    assert len(error) < 400
