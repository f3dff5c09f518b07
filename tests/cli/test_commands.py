"""Every command, from text to pictures, on a tiny model; and what wrong calls say, with nothing overwritten."""

from __future__ import annotations

import io
import json
import re
import shutil

import numpy as np
import pytest

from jax_attention import models, normalizers, training
from jax_attention.cli import app
from jax_attention.cli.main import main
from jax_attention.cli.options import EXPRESSIONS, FROM_DATA, argument_help, model_config

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60
TINY = ["--width", "16", "--depth", "1", "--num-heads", "2", "--context", "16", "--batch-size", "4"]
QUICK = [*TINY, "--tokenizer", "characters", "--steps", "6", "--warmup", "1", "--sample-tokens", "4"]
QUICK += ["--evaluate-every", "3", "--checkpoint-every", "3", "--dropout", "0.1"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "fox"
    assert main(["train", str(text), "--out", str(folder), *QUICK]) == 0
    return folder


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_train_leaves_a_complete_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "tokenizer", "checkpoints", "metrics.jsonl", "results.json", "attention.html"}
    assert names >= {"attention.png", "heads.png"}
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"unigram counts", "bigram counts", "this model"}
    assert all(0 < entry["bits_per_byte"] < 20 for entry in results.values())
    kinds = [entry["kind"] for entry in training.read_metrics(run / "metrics.jsonl")]
    assert kinds.count("evaluation") == 2


def test_generate_continues_and_repeats_itself_with_the_same_seed(run, capsys):
    spoken = []
    for seed in ("1", "1", "2"):
        assert main(["generate", str(run), "--prompt", "the ", "--max-new-tokens", "9", "--seed", seed]) == 0
        spoken.append(capsys.readouterr().out)
    assert spoken[0] == spoken[1] != spoken[2]
    assert all(line.startswith("the ") and len(line) == len("the ") + 9 + 1 for line in spoken)


def test_generate_stops_at_the_context_and_says_so(run, capsys):
    assert main(["generate", str(run), "--prompt", "the quick", "--greedy"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out) == 16 + 1
    assert "stopped at the model's context of 16 tokens" in printed.err


def test_generate_reads_standard_input(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the "))
    assert main(["generate", str(run), "--prompt", "-", "--greedy", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("the ")


def test_evaluate_repeats_the_figure_of_training(run, capsys):
    assert main(["evaluate", str(run), "--step", "6"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split("\t")
    figure = json.loads((run / "results.json").read_text(encoding="utf-8"))["this model"]
    assert line[1] == "6"
    assert line[3:] == [f"{figure['nats_per_token']:.4f}", f"{figure['bits_per_byte']:.4f}"]


def test_evaluate_takes_other_text(run, text, capsys):
    assert main(["evaluate", str(run), "--files", str(text)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[2] == str(len(TEXT) - 1)


def test_show_draws(run, tmp_path, capsys):
    assert main(["show", str(run), "--text", "the lazy dog", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.split()
    assert {path.name for path in tmp_path.iterdir()} == {"attention.html", "attention.png", "heads.png"}
    assert len(printed) == 3
    assert "lazy" not in (tmp_path / "attention.html").read_text(encoding="utf-8")[:200]


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


def _state(run):
    import jax

    from jax_attention.cli.run_folder import open_run
    from jax_attention.cli.train import TrainSettings, first_state

    opened = open_run(run)
    settings = TrainSettings.from_json(opened.settings)
    optimizer, _ = settings.parts()
    return jax.eval_shape(lambda: first_state(opened.config, optimizer, settings.loop.seed))


def _arrays(state):
    import jax

    keys = lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x  # noqa: E731
    return [np.asarray(keys(x)) for x in jax.tree.leaves(state)]


# --- Wrong calls -----------------------------------------------------------------------------------------------------


def refused(arguments, capsys):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("jax-attention: ")
    assert "Traceback" not in printed.err
    return printed.err


def test_train_refuses_a_folder_that_holds_something(run, text, capsys):
    before = tree(run)
    message = refused(["train", str(text), "--out", str(run), *QUICK], capsys)
    assert "expected a new or empty folder" in message
    assert "--resume" in message
    assert tree(run) == before


def test_train_names_a_missing_file_and_makes_no_folder(tmp_path, capsys):
    out = tmp_path / "out"
    assert "nowhere.txt" in refused(["train", str(tmp_path / "nowhere.txt"), "--out", str(out), *QUICK], capsys)
    assert not out.exists()


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"abc\xff\xfedef" * 9, "UTF-8"), (b"ab", "length")])
def test_train_names_what_is_wrong_with_the_text(content, said, tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    message = refused(["train", str(path), "--out", str(tmp_path / "out"), *QUICK], capsys)
    assert said in message
    assert not (tmp_path / "out").exists()


def test_train_refuses_a_wrong_rule_before_it_reads_anything(text, tmp_path, capsys):
    arguments = ["train", str(text), "--out", str(tmp_path / "out"), *QUICK]
    assert "Write causal()" in refused([*arguments, "--mask", "causal"], capsys)
    assert "kv_heads" in refused([*arguments, "--kv-heads", "3"], capsys)
    assert not (tmp_path / "out").exists()


def test_resume_refuses_options_that_it_would_ignore(run, capsys):
    assert "would be ignored" in refused(["train", "--out", str(run), "--resume", "--learning-rate", "1"], capsys)
    assert "--out" in refused(["train", "--resume"], capsys)


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


def test_standard_input_is_text_too(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["train", "-", "--out", str(tmp_path / "out"), *QUICK, "--sample-tokens", "0"]) == 0
    assert main(["train", "--resume", "--out", str(tmp_path / "out")]) == 0


REFUSED = {
    "warmup: expected at most the 6 steps": ["--warmup", "100"],
    "accumulate: expected a divisor of the batch size 4": ["--accumulate", "3"],
    "label_smoothing: expected 0 <= a < 1": ["--label-smoothing", "2"],
    "keep: expected an int >= 1": ["--keep", "0"],
    "'~'": ["--prompt", "~"],
    "mask: expected one that hides the future": ["--mask", "dilated(1)"],
    "rope: expected frequencies that do not change": ["--rope", "rotary(scaling=dynamic_scaling(2.0, 64))"],
    "rope: expected a value made by rotary": ["--rope", "alibi_slopes(4)"],
    "mask: expected a value made by": ["--mask", "rotary()"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_wrong_settings_are_found_before_a_folder_is_made(said, text, tmp_path, capsys):
    out = tmp_path / "out"
    assert said in refused(["train", str(text), "--out", str(out), *QUICK, *REFUSED[said]], capsys)
    assert not out.exists()


def test_none_is_a_value_and_not_the_presets():
    command = app.parse(
        [
            "train",
            "--preset",
            "gemma2",
            "--score-cap",
            "None",
            "--kv-heads",
            "None",
            "--score",
            "None",
            "--windows",
            "None",
        ]
    )
    config = model_config(command.preset, command.model, 7)
    assert (config.score_cap, config.kv_heads, config.score, config.windows) == (None, None, None, (None,))
    assert (config.logit_cap, config.head_size, config.vocab_size) == (30.0, 256, 7)


def test_every_field_of_a_model_can_be_said():
    given = [
        "--position",
        "alibi",
        "--windows",
        "8",
        "None",
        "--normalize",
        "sparsemax()",
        "--dropout",
        "0.25",
        "--scan",
        "True",
    ]
    config = model_config("tiny", app.parse(["train", *given]).model, 7)
    assert (config.position, config.windows, config.dropout, config.scan) == ("alibi", (8, None), 0.25, True)
    assert config.normalize == normalizers.sparsemax()


def test_rules_with_negative_weights_train_and_say_what_is_not_drawn(text, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", str(text), "--out", str(out), *QUICK, "--normalize", "linear()"]) == 0
    assert "no heads.png: weights: expected no negative number" in capsys.readouterr().out
    assert (out / "results.json").exists()


def test_characters_that_training_never_saw_are_paid_for(tmp_path, capsys):
    """A model that says 'unknown' at every place must not look good: 20 bits for 3 bytes are what spelling costs."""
    path, strange = tmp_path / "some.txt", tmp_path / "strange.txt"
    path.write_text(TEXT + "天" * 9, encoding="utf-8")
    strange.write_text("气" * 400, encoding="utf-8")
    out = tmp_path / "out"
    assert main(["train", str(path), "--out", str(out), *QUICK]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--files", str(strange)]) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split("\t")[4]) > 6.7


@pytest.mark.parametrize("command", [["generate", "--prompt", "the"], ["show", "--text", "the"], ["evaluate"]])
def test_commands_name_a_folder_that_is_no_run(command, tmp_path, capsys):
    arguments = [command[0], str(tmp_path / "none"), *command[1:]]
    assert "expected the folder of a run" in refused(arguments, capsys)


def test_prompt_longer_than_the_context(run, capsys):
    message = refused(["generate", str(run), "--prompt", "the quick brown fox jumps"], capsys)
    assert "expected fewer tokens than the context of 16, got 25" in message
    assert "expected 1 to 16 tokens" in refused(["show", str(run), "--text", "the quick brown fox"], capsys)
    assert "empty" in refused(["generate", str(run), "--prompt", ""], capsys)


def test_prompt_with_characters_that_the_model_never_saw(run, capsys):
    assert "天" in refused(["generate", str(run), "--prompt", "天"], capsys)


def test_greedy_with_a_temperature_is_a_contradiction(run, capsys):
    message = refused(["generate", str(run), "--prompt", "the", "--greedy", "--temperature", "0.5"], capsys)
    assert "greedy" in message
    assert "--seed" in refused(["generate", str(run), "--prompt", "the", "--greedy", "--seed", "5"], capsys)
    assert "num_samples" in refused(["generate", str(run), "--prompt", "the", "--num-samples", "0"], capsys)


def test_another_tokenizer_in_the_folder(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    settings = copy / "tokenizer" / "settings.json"
    found = json.loads(settings.read_text(encoding="utf-8"))
    found["vocabulary"] += "é"
    settings.write_text(json.dumps(found), encoding="utf-8")
    assert "the tokenizer that the model was trained with" in refused(["generate", str(copy), "--prompt", "t"], capsys)


def test_damaged_checkpoint(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            content = bytearray(path.read_bytes())
            content[len(content) // 2 :] = b""
            path.write_bytes(bytes(content))
    assert "checkpoint" in refused(["generate", str(copy), "--prompt", "the"], capsys)


def test_missing_step(run, capsys):
    assert "step 99" in refused(["generate", str(run), "--prompt", "the", "--step", "99"], capsys)


@pytest.mark.parametrize("arguments", [["train", "--stepz", "3"], ["nonsense"], ["explain", "--dtype", "int8"], []])
def test_unknown_options_end_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_help_names_every_field_of_the_model(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    fields = [name for name in models.LMConfig.__dataclass_fields__ if name not in FROM_DATA]
    missing = [name for name in fields if f"--{name.replace('_', '-')}" not in printed]
    assert missing == []
    assert set(argument_help(models.LMConfig)) == set(models.LMConfig.__dataclass_fields__)
    assert set(EXPRESSIONS) <= set(fields)


# --- Catalogue and explanation ---------------------------------------------------------------------------------------


def test_rules_lists_the_catalogue_for_other_programs(capsys):
    assert main(["rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:2] == ["part", "rule"]
    assert any(line.startswith("mask\tsliding_window\t") for line in lines)
    assert main(["rules", "soft_cap"]) == 0
    assert "cap * tanh(score / cap)" in capsys.readouterr().out
    assert "expected one of" in refused(["rules", "nothing"], capsys)


def test_explain_reports(capsys):
    assert main(["explain", "--length", "32", "--mask", "causal() & sliding_window(8)", "--kv-heads", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("implementation: ")
    assert re.search(r"query: +float32\[1,32,8,64\]", printed)
    assert re.search(r"key: +float32\[1,32,2,64\]", printed)
