"""A resumed run ends at the same numbers, from its folder alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from jax_attention import training
from jax_attention.cli.main import main
from tests.cli.fox import refused, tree


def _state(run):
    from jax_attention.cli.run_folder import open_run
    from jax_attention.cli.settings import TrainSettings
    from jax_attention.cli.train import state_shapes

    opened = open_run(run)
    return state_shapes(opened, TrainSettings.from_json(opened.settings))


def _arrays(state):
    import jax

    keys = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return [np.asarray(keys(x)) for x in jax.tree.leaves(state)]


@pytest.mark.slow
def test_resume_of_a_finished_run_changes_no_number(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert main(["train", "--out", str(copy), "--resume"]) == 0
    before, after = tree(run / "checkpoints"), tree(copy / "checkpoints")
    assert before == after


def test_resume_from_the_middle_ends_at_the_same_numbers(run, text, tmp_path):
    """The run itself again, stopped after 3 of its 6 steps by taking its last checkpoint away; dropout is on."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "6")
    assert main(["train", "--out", str(copy), "--resume"]) == 0
    like = _state(run)
    one, other = (training.Checkpoints(folder / "checkpoints").restore(6, like=like) for folder in (run, copy))
    for a, b in zip(_arrays(one), _arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)
    lines = [
        [entry for entry in training.read_metrics(f / "metrics.jsonl") if entry["kind"] == "evaluation"]
        for f in (run, copy)
    ]
    assert [(e["step"], e["loss"]) for e in lines[0]] == [(e["step"], e["loss"]) for e in lines[1]]


def test_resume_refuses_options_that_it_would_ignore(run, capsys):
    assert "would be ignored" in refused(["train", "--out", str(run), "--resume", "--learning-rate", "1"], capsys)
    assert "--out" in refused(["train", "--resume"], capsys)


@pytest.mark.slow
def test_resume_needs_the_folder_alone(run, tmp_path):
    """The text may be gone or changed: a run keeps its tokens. And without a checkpoint it begins again."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["settings"]["files"] = [str(tmp_path / "gone.txt")]
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.rmtree(copy / "checkpoints")
    assert main(["train", "--out", str(copy), "--resume"]) == 0
    like = _state(run)
    one, other = (training.Checkpoints(folder / "checkpoints").restore(6, like=like) for folder in (run, copy))
    for a, b in zip(_arrays(one), _arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert main(["evaluate", str(copy)]) == 0
