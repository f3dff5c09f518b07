"""A new run from an old one: from its weights, or from its whole state; the lineage is recorded."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

from jax_attention import models, training
from jax_attention.cli import run_folder
from jax_attention.cli.__main__ import main
from tests.cli.quick_run import error_of

FURTHER = ["--steps", "4", "--warmup", "1", "--sample-tokens", "0", "--batch-size", "4", "--learning-rate", "1e-3"]
FURTHER += ["--evaluate-every", "2", "--checkpoint-every", "2"]
NO_STEPS = ["--steps", "0", "--warmup", "0", "--sample-tokens", "0", "--batch-size", "4"]


def losses(folder):
    return {x["step"]: x["loss"] for x in training.read_metrics(folder / "metrics.jsonl", "evaluation")}


def test_a_run_from_the_weights_of_another(run, tmp_path):
    """Without files it has the text of the old run, and it needs only its own folder afterwards."""
    old, out = shutil.copytree(run, tmp_path / "old"), tmp_path / "new"
    assert main(["train", "--from", str(old), "--out", str(out), *FURTHER]) == 0
    new, parent = run_folder.open_run(out), run_folder.open_run(old)
    best = parent.checkpoints.best
    assert new.origin == {"folder": str(old), "run": parent.identity["id"], "step": best}
    assert new.identity["id"] != parent.identity["id"]
    assert new.config == parent.config
    assert new.identity["data"] == parent.identity["data"]
    steps = new.checkpoints.steps
    assert steps[-2:] == [2, 4]
    assert losses(out)[4] < losses(run)[best]
    shutil.rmtree(old)
    shutil.rmtree(out / "checkpoints" / "4")
    before = losses(out)
    assert main(["train", "--resume", "--out", str(out)]) == 0
    assert losses(out) == before


def test_the_first_checkpoint_has_the_weights_of_the_old_run(run, tmp_path):
    out = tmp_path / "new"
    assert main(["train", "--from", str(run), "--from-step", "3", "--out", str(out), *NO_STEPS]) == 0
    old, new = run_folder.open_run(run), run_folder.open_run(out)
    (a, step), (b, _) = old.load(3), new.load(0)
    assert step == 3
    for x, y in zip(*(jax.tree.leaves(models.to_dict(model)) for model in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_whole_state_goes_on_as_the_old_run_would_have(run, tmp_path):
    """From step 3 with the settings of the old run: the same numbers as the run itself, dropout included."""
    from tests.cli.quick_run import QUICK

    out = tmp_path / "new"
    options = QUICK[QUICK.index("--steps") :]
    command = ["train", "--from", str(run), "--from-step", "3", "--whole-state", "--out", str(out), *options]
    assert main([*command, "--batch-size", "4"]) == 0
    assert run_folder.open_run(out).checkpoints.steps == [3, 6]
    assert losses(out)[6] == losses(run)[6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--from-step", "4"], "expected a complete checkpoint of step 4"),
        (["--whole-state", "--steps", "2", "--warmup", "1"], "steps: expected at least"),
        (["--whole-state", "--lora", "2"], "expected runs that train whole models, got adapters"),
        (["--width", "32"], "expected no option that makes another model"),
        (["--tokenizer", "bytes"], "expected the folder to decide the model and its tokenizer"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(run, tmp_path, capsys, options, message):
    out = tmp_path / "new"
    assert message in error_of(["train", "--from", str(run), "--out", str(out), *options], capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_parent_was_replaced_is_refused_where_it_needs_it(run, tmp_path, capsys):
    """Adapters need their base, which is the old run."""
    old, out = shutil.copytree(run, tmp_path / "old"), tmp_path / "new"
    assert main(["train", "--from", str(old), "--lora", "2", "--out", str(out), *FURTHER]) == 0
    assert main(["evaluate", str(out)]) == 0
    contents = json.loads((old / "config.json").read_text(encoding="utf-8"))
    contents["run"]["id"] = "0" * 16
    (old / "config.json").write_text(json.dumps(contents), encoding="utf-8")
    assert "that it started from in" in error_of(["evaluate", str(out)], capsys)
