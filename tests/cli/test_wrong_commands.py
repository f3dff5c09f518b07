"""Messages of wrong calls, which overwrite nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jax_attention.cli.__main__ import main
from tests.cli.quick_run import QUICK, error_of, files_in
from tests.support.tiers import slow


def test_train_refuses_a_folder_that_is_not_empty(run, text, capsys):
    before = files_in(run)
    message = error_of(["train", str(text), "--out", str(run), *QUICK], capsys)
    assert "expected a new or empty folder" in message
    assert "--resume" in message
    assert files_in(run) == before


def test_train_names_a_missing_file_and_makes_no_folder(tmp_path, capsys):
    out = tmp_path / "out"
    assert "nowhere.txt" in error_of(["train", str(tmp_path / "nowhere.txt"), "--out", str(out), *QUICK], capsys)
    assert not out.exists()


@pytest.mark.parametrize(("content", "expected"), [(b"", "empty"), (b"abc\xff\xfedef" * 9, "UTF-8"), (b"ab", "length")])
def test_train_names_what_is_wrong_with_the_text(content, expected, tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    message = error_of(["train", str(path), "--out", str(tmp_path / "out"), *QUICK], capsys)
    assert expected in message
    assert not (tmp_path / "out").exists()


def test_train_refuses_a_wrong_rule_before_it_reads_anything(text, tmp_path, capsys):
    arguments = ["train", str(text), "--out", str(tmp_path / "out"), *QUICK]
    assert "Write causal()" in error_of([*arguments, "--mask", "causal"], capsys)
    assert "--kv-heads: expected a divisor of --num-heads 2" in error_of([*arguments, "--kv-heads", "3"], capsys)
    assert not (tmp_path / "out").exists()


WRONG_SETTINGS = {
    "--warmup: expected at most the 6 steps": ["--warmup", "100"],
    "--accumulate: expected a divisor of the batch size 4": ["--accumulate", "3"],
    "--label-smoothing: expected 0 <= a < 1": ["--label-smoothing", "2"],
    "--keep: expected a whole number >= 1": ["--keep", "0"],
    "'~'": ["--prompt", "~"],
    "--mask: expected one that hides the future": ["--mask", "dilated(1)"],
    "--rope: expected a call of rotary": ["--rope", "alibi_slopes(4)"],
    "--mask: expected a call of": ["--mask", "rotary()"],
}


@pytest.mark.parametrize("message", WRONG_SETTINGS)
def test_wrong_settings_are_found_before_a_folder_is_made(message, text, tmp_path, capsys):
    out = tmp_path / "out"
    assert message in error_of(["train", str(text), "--out", str(out), *QUICK, *WRONG_SETTINGS[message]], capsys)
    assert not out.exists()


@pytest.mark.parametrize("command", [["generate", "--prompt", "the"], ["show", "--text", "the"], ["evaluate"]])
def test_a_folder_that_is_no_run_is_named(command, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for name, problem in (("none", "which does not exist"), ("file", "a file"), ("", "which has none")):
        message = error_of([command[0], str(tmp_path / name), *command[1:]], capsys)
        assert "expected the folder of a run" in message
        assert f"{str(tmp_path / name)!r}, {problem}" in message


def test_prompt_longer_than_the_context(run, capsys):
    message = error_of(["generate", str(run), "--prompt", "the quick brown fox jumps"], capsys)
    assert "expected fewer tokens than the context of 16, got 25" in message
    assert "expected 1 to 16 tokens" in error_of(["show", str(run), "--text", "the quick brown fox"], capsys)
    assert "empty" in error_of(["generate", str(run), "--prompt", ""], capsys)


def test_prompt_with_characters_that_the_model_never_saw(run, capsys):
    assert "天" in error_of(["generate", str(run), "--prompt", "天"], capsys)


def test_greedy_with_a_temperature_is_a_contradiction(run, capsys):
    message = error_of(["generate", str(run), "--prompt", "the", "--greedy", "--temperature", "0.5"], capsys)
    assert "greedy" in message
    assert "--seed" in error_of(["generate", str(run), "--prompt", "the", "--greedy", "--seed", "5"], capsys)
    assert "--num-samples" in error_of(["generate", str(run), "--prompt", "the", "--num-samples", "0"], capsys)


def test_beams_with_options_that_they_would_ignore(run, capsys):
    command = ["generate", str(run), "--prompt", "the", "--beams", "2"]
    message = error_of([*command, "--top-k", "5", "--seed", "0"], capsys)
    assert "expected no --top-k and no --seed with it" in message
    assert "--greedy" in error_of([*command, "--greedy"], capsys)
    assert "--num-samples: expected at most --beams 2, got 3" in error_of([*command, "--num-samples", "3"], capsys)
    assert "--beams: expected a whole number >= 1" in error_of([*command[:-1], "0"], capsys)


def test_another_tokenizer_in_the_folder(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    settings = copy / "tokenizer" / "settings.json"
    contents = json.loads(settings.read_text(encoding="utf-8"))
    contents["vocabulary"] += "é"
    settings.write_text(json.dumps(contents), encoding="utf-8")
    assert "the tokenizer that the model was trained with" in error_of(["generate", str(copy), "--prompt", "t"], capsys)


def test_damaged_checkpoint(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            content = bytearray(path.read_bytes())
            content[len(content) // 2 :] = b""
            path.write_bytes(bytes(content))
    assert "checkpoint" in error_of(["generate", str(copy), "--prompt", "the"], capsys)


@pytest.mark.parametrize("option", ["--greedy", *slow("--beams=2")])
def test_weights_that_are_nan(base, option, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][:] = np.nan
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    message = error_of(["generate", str(copy), "--prompt", "the", option, "--max-new-tokens", "3"], capsys)
    assert "expected a model that gives every token a probability, got NaN" in message


def test_missing_step(run, capsys):
    assert "step 99" in error_of(["generate", str(run), "--prompt", "the", "--step", "99"], capsys)


@pytest.mark.parametrize("arguments", [["train", "--stepz", "3"], ["nonsense"], ["explain", "--dtype", "int8"], []])
def test_unknown_options_end_with_a_message(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err
