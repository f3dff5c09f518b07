"""A resumed run ends at the same numbers; it needs only its folder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from jax_attention import training
from jax_attention.cli.__main__ import main
from jax_attention.cli.run_identity import digest
from tests.cli.quick_run import error_of, files_in


def _state_shapes(run):
    """The train state of a run, as shapes."""
    from jax_attention.cli.run_folder import open_run
    from jax_attention.cli.settings import TrainSettings
    from jax_attention.cli.train import state_shapes

    opened = open_run(run)
    return state_shapes(opened, TrainSettings.from_json(opened.settings))


def _arrays(state):
    """All arrays of a state; random keys as their bits."""
    import jax

    to_bits = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return [np.asarray(to_bits(x)) for x in jax.tree.leaves(state)]


@pytest.mark.slow
def test_resume_of_a_finished_run_changes_no_number(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert main(["train", "--out", str(copy), "--resume"]) == 0
    before, after = files_in(run / "checkpoints"), files_in(copy / "checkpoints")
    assert before == after


def test_resume_from_the_middle_ends_at_the_same_numbers(run, text, tmp_path):
    """The same run, stopped after 3 of its 6 steps by removing its last checkpoint; dropout is on."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "6")
    assert main(["train", "--out", str(copy), "--resume"]) == 0
    like = _state_shapes(run)
    states = (training.Checkpoints(folder / "checkpoints").restore(6, like=like) for folder in (run, copy))
    for a, b in zip(*map(_arrays, states), strict=True):
        np.testing.assert_array_equal(a, b)
    evaluations = [
        [entry for entry in training.read_metrics(f / "metrics.jsonl") if entry["kind"] == "evaluation"]
        for f in (run, copy)
    ]
    assert [(e["step"], e["loss"]) for e in evaluations[0]] == [(e["step"], e["loss"]) for e in evaluations[1]]


def test_resume_refuses_options_that_it_would_ignore(run, capsys):
    resume, before = ["train", "--out", str(run), "--resume"], files_in(run)
    assert "got --preset, --width, which would be ignored" in error_of(
        [*resume, "--width", "8", "--preset", "gpt2"], capsys
    )
    assert "expected the run's own --batch-size" in error_of([*resume, "--batch-size", "8"], capsys)
    assert "expected the run's own --files" in error_of([*resume, "other.txt"], capsys)
    assert "steps: expected at least 6, the steps that are done" in error_of([*resume, "--steps", "5"], capsys)
    assert "--out" in error_of(["train", "--resume"], capsys)
    assert {name: x for name, x in files_in(run).items() if name.name != "lock"} == {
        name: x for name, x in before.items() if name.name != "lock"
    }


def test_a_finished_run_goes_on_with_more_steps_and_another_rate(run, tmp_path, capsys):
    """The change is recorded; a setting that equals the program's default counts as given."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    resume = ["train", "--out", str(copy), "--resume"]
    assert main([*resume, "--steps", "8", "--learning-rate", "3e-4"]) == 0
    printed = capsys.readouterr().out
    assert "changed    optimizer.learning_rate: 0.001 -> 0.0003, loop.steps: 6 -> 8" in printed
    assert "at step 6 of 8" in printed
    assert "rate       0.0001 -> " in printed
    steps = [entry["step"] for entry in training.read_metrics(copy / "metrics.jsonl", "evaluation")]
    assert steps == [3, 6, 8]
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    assert config["settings"]["loop"]["steps"] == 8
    assert [entry["step"] for entry in config["history"]] == [6]
    assert main([*resume, "--learning-rate", "1e-3"]) == 0
    assert "optimizer.learning_rate: 0.0003 -> 0.001" in capsys.readouterr().out


@pytest.mark.slow
def test_resume_needs_only_the_folder(run, tmp_path):
    """The text may be gone or changed: a run keeps its tokens. Without a checkpoint it starts again."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["settings"]["files"] = [str(tmp_path / "gone.txt")]
    config["run"]["settings"] = digest(config["settings"])
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.rmtree(copy / "checkpoints")
    assert main(["train", "--out", str(copy), "--resume"]) == 0
    like = _state_shapes(run)
    states = (training.Checkpoints(folder / "checkpoints").restore(6, like=like) for folder in (run, copy))
    for a, b in zip(*map(_arrays, states), strict=True):
        np.testing.assert_array_equal(a, b)
    assert main(["evaluate", str(copy)]) == 0
