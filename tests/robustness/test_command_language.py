"""The command line speaks of options: no argument of Python, no internal name, no traceback, no long message."""

from __future__ import annotations

import os
import re
import resource

import pytest

from jax_attention.cli.__main__ import MAX_MESSAGE, main
from jax_attention.cli.arguments import COMMANDS, parse
from jax_attention.cli.language import translate
from jax_attention.cli.machine import check_machine
from jax_attention.cli.options import flag_names, model_config, option_names

PYTHON = re.compile(r"__tyro|jnp\.|greedy\(\)|[a-z]_[a-z]+(?==)|\bPython int|LoopConfig|Traceback|[│╭]")
"""What no message of the command line may contain."""

TRANSLATIONS = {
    "batch_size: expected an int >= 1, got 0. It is a setting of LoopConfig.": (
        "--batch-size: expected a whole number >= 1, got 0."
    ),
    "num_heads: expected a divisor of width = 128, got 3. Or give head_size.": (
        "--num-heads: expected a divisor of --width 128, got 3. Or give --head-size."
    ),
    'dtype: expected parameters of float32, got float16. Give param_dtype="float32".': (
        "--dtype: expected parameters of float32, got float16. Give --param-dtype float32."
    ),
    "k: expected integers, got float32[]. Cast them: k.astype(jnp.int32).": "k: expected integers, got float32[].",
    "lora_alpha, lora_targets: expected only with a rank, got no --lora. Add --lora 8.": (
        "--lora-alpha, --lora-targets: expected only with a rank, got no --lora. Add --lora 8."
    ),
    "batch_size: expected a multiple of the 8 devices of the mesh, got 5. Take 8, or fewer devices: "
    "mesh=training.data_mesh(batch_size=5).": (
        "--batch-size: expected a multiple of the 8 devices of the mesh, got 5. Take 8, or fewer devices: --devices."
    ),
    "fraction: expected a number between 0 and 1, got 3.": (
        "--validation-fraction: expected a number between 0 and 1, got 3."
    ),
    "mask: in 'batch_size=1 & width = 2': offset: expected an int, got 'width=1'.": (
        "--mask: in 'batch_size=1 & width = 2': offset: expected an int, got 'width=1'."
    ),
    "from: expected a model in 'batch_size/out_dir/val_set.txt'.": (
        "from: expected a model in 'batch_size/out_dir/val_set.txt'."
    ),
    "rng: expected None, as greedy() draws nothing. Use greedy() alone.": (
        "rng: expected None, as --greedy draws nothing. Use --greedy alone."
    ),
    "kv_heads: expected None with position='rotary' and scan=True, got 3.": (
        "--kv-heads: expected None with --position rotary and --scan True, got 3."
    ),
}


@pytest.mark.parametrize("message", TRANSLATIONS)
def test_messages_of_the_library_name_options(message):
    assert translate(message, option_names(COMMANDS["train"])) == TRANSLATIONS[message]


def test_every_option_has_a_name():
    for kind in COMMANDS.values():
        names = option_names(kind)
        assert all(re.fullmatch(r"--[a-z0-9-]+|[A-Z]+", name) for name in names.values())
        assert flag_names(kind) <= set(names)
    assert option_names(COMMANDS["train"])["origin"] == "--from"
    assert flag_names(COMMANDS["train"]) == {"resume", "packed", "tensorboard", "whole_state"}


# --- Wrong commands --------------------------------------------------------------------------------------------------

HUGE = "99999999999999999999"
A_COMMAND = "expected a command (train, generate, evaluate, show, export, rules, explain, compare, verify)"
USAGE = {
    ("train", "--stepz", "3"): "--stepz: expected an option of jax-attention train, got an unknown one. "
    "Did you mean --steps?",
    ("train", "--learning_rat=3"): "--learning_rat: expected an option of jax-attention train, got an unknown one. "
    "Did you mean --learning-rate?",
    ("explain", "--bad[/y]"): "--bad[/y]: expected an option of jax-attention explain, got an unknown one. "
    "Help: jax-attention explain --help.",
    ("explain", "3"): "expected no such argument: 3. Help: jax-attention explain --help.",
    ("explian",): f"{A_COMMAND}, got 'explian'. Did you mean explain?",
    (): f"{A_COMMAND}, got none. Help: jax-attention --help.",
    ("--seed", "3", "train"): f"{A_COMMAND}, got '--seed'. Help: jax-attention --help.",
    ("explain", "--dtype", "int8"): "--dtype: expected one of bfloat16, float16, float32, got 'int8'.",
    ("explain", "--length", "x"): "--length: expected a whole number, got 'x'.",
    ("explain", "--length", "1" * 5000): "--length: expected a whole number, got one of 5000 digits.",
    ("explain", "--length"): "--length: expected a value, got none.",
    ("train", "--learning-rate", "x"): "--learning-rate: expected a number, got 'x'.",
    ("train", "--depth", "x"): "--depth: expected {preset}|INT, got 'x'.",
    ("train", "--batch-size", "0"): "--batch-size: expected a whole number >= 1, got 0.",
    ("train", "--decay-share", "0.1"): "--decay-share: expected None with --schedule cosine, which does not use it, "
    "got 0.1. Leave it out.",
    ("train", "--preset", "x[/y]\x1b]0;t\x07"): "--preset: expected one of None, gemma2, gpt2, llama, tiny, got "
    "'x[/y]\\x1b]0;t\\x07'.",
    ("generate",): "expected PATH, got no value.",
    ("train", "--seed", HUGE): f"--seed: expected a whole number from 0 to 4294967295, got {HUGE}.",
    ("generate", "x", "--prompt", "a", "--seed", HUGE): f"--seed: expected a whole number from 0 to 4294967295, got "
    f"{HUGE}.",
    ("train", "--windows", "8", HUGE): "--windows: expected a whole number from -2147483648 to 2147483647, got "
    f"{HUGE}.",
}


@pytest.mark.parametrize("arguments", USAGE)
def test_wrong_options_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err == f"jax-attention: {USAGE[arguments]}\n"


WRONG = {
    ("explain", "--length", "-3"): "--length: expected 1 to 16,777,216, got -3.",
    ("explain", "--keys", "0"): "--keys: expected 1 to 16,777,216, got 0.",
    ("explain", "--length", "1000000000"): "--length: expected 1 to 16,777,216, got 1000000000.",
    ("explain", "--mask", "~" * 5000 + "causal()"): "(5,010 characters): it is nested too deeply",
    ("explain", "--mask", "~" * 300 + "causal()"): "--mask: expected at most 100 operators and calls",
    ("explain", "--mask", " & ".join(["causal()"] * 300)): "--mask: expected at most 100 operators and calls",
    ("explain", "--mask", "causal(" + "9" * 20_000): "--mask: expected at most 10,000 characters",
    ("explain", "--mask", "causal(1e999)"): "--mask: in 'causal(1e999)': offset: expected",
    ("explain", "--mask", f"causal({HUGE})"): f"--mask: in 'causal({HUGE})': offset",
    ("explain", "--kv-heads", "3"): "--kv-heads: expected a divisor of --heads 8, got 3.",
    ("train", "--width", "1000000"): "bytes (24,000,006,000,000 parameters). Lower --width",
    ("train", "--depth", "1000000000"): "bytes (196,864,000,000,256 parameters). Lower --width",
    ("train", "--batch-size", "1000000000"): "bytes (393,984 parameters). Lower --width",
    ("train", "--num-heads", "3"): "--num-heads: expected a divisor of --width 128, got 3.",
    ("train", "--devices", "0"): "--devices: expected at least one device, got none.",
    ("train", "--devices", "4096"): "--devices: expected at most the ",
    ("compare", "x[/y]\x1b]0;t\x07"): "got 'x[/y]\\x1b]0;t\\x07'",
    ("show", os.fsdecode(b"\xff"), "--text", "a"): "got '\\udcff'",
    ("train", os.fsdecode(b"\xff")): "\\udcff'",
    ("generate", "x", "--prompt", "a", "--top-p", "3"): "--top-p: expected a probability",
    ("generate", "x", "--prompt", "a", "--min-p", "-1"): "--min-p: expected a share",
    ("generate", "x", "--prompt", "a", "--top-k", "0"): "--top-k: expected a whole number >= 1",
    ("generate", "x", "--prompt", "a", "--greedy", "--top-k", "3"): "--greedy: expected no --top-k with it",
    ("generate", "x", "--prompt", "a", "--max-new-tokens", "0"): "--max-new-tokens: expected a whole number >= 1",
    ("generate", "x", "--prompt", "a", "--stop", ""): "--stop: expected texts",
    ("rules", "slidin_window"): "Did you mean sliding_window?",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_values_are_one_line(arguments, tmp_path, capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = ["--out", str(tmp_path / "out")] if arguments[0] == "train" else []
    assert main([*arguments, *out]) == 1
    printed = capsys.readouterr()
    assert WRONG[arguments] in printed.err
    assert printed.err.count("\n") == 1
    assert not PYTHON.search(printed.err)
    assert printed.out == ""
    assert not (tmp_path / "out").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


# --- Any error of a command ------------------------------------------------------------------------------------------

ERRORS = {
    "memory": (MemoryError(), "memory: expected enough for this command, got too little (none left)."),
    "XLA": (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"), "allocating 9 bytes.)."),
    "number": (OverflowError("Python int too large to convert to C long"), "number: expected one of at most 64 bits"),
    "disk": (OSError(28, "No space left on device", "a\x1b"), "'a\\x1b': expected room on the disk, got a full disk."),
    "library": (ValueError('write "/x/y": Too many open files [spec={}]'), "'/x/y': expected room for one more open"),
    "bytes": (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "text: expected UTF-8 in names"),
    "long": (ValueError("x: expected a name, got " + "\x1b" * 10**6), "\\x1b… (1,000,024 characters)"),
    "argument": (TypeError("length: expected a Python int, got 'a\x1b'."), "--length: expected a whole number, got 'a"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_are_short_and_without_traceback(what, monkeypatch, capsys):
    error, expected = ERRORS[what]
    monkeypatch.setattr(COMMANDS["explain"], "run", lambda command: (_ for _ in ()).throw(error))
    assert main(["explain"]) == 1
    printed = capsys.readouterr().err
    assert expected in printed
    assert len(printed) < MAX_MESSAGE + 100
    assert "\x1b" not in printed


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(COMMANDS["explain"], "run", lambda command: len(3))
    with pytest.raises(TypeError, match="has no len"):
        main(["explain"])


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "jax-attention 0.2.0\n"


def test_a_model_that_fits_is_not_refused():
    settings = parse(["train", "--batch-size", "2"]).settings
    check_machine(model_config("tiny", parse(["train"]).model, 2048), settings)


# --- A file of options -----------------------------------------------------------------------------------------------


def config_file(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    text = """
        files = ["a.txt", "b.txt"]
        steps = 70
        learning-rate = 0.01
        batch_size = 8
        packed = true
        tensorboard = false
        use_bias = true
        windows = [64, "None"]
        mask = "causal() & sliding_window(64)"
        prompt = "--- once"
        from = "model"
        schedule = "wsd"
    """
    path = config_file(tmp_path, text)
    command = parse(["train", "--steps", "9", "--config", path, "--decay-share", "0.5"])
    assert command.settings.files == ("a.txt", "b.txt")
    assert command.settings.loop.steps == 9
    assert command.settings.loop.batch_size == 8
    assert (command.settings.optimizer.learning_rate, command.settings.optimizer.decay_share) == (0.01, 0.5)
    assert (command.settings.packed, command.settings.tensorboard) == (True, False)
    assert (command.model.use_bias, command.model.windows) == (True, (64, None))
    assert command.model.mask == "causal() & sliding_window(64)"
    assert (command.settings.prompt, str(command.origin), str(command.config)) == ("--- once", "model", path)
    assert command.settings.keep == 3
    assert parse(["train", f"--config={path}", "c.txt", "--no-packed"]).settings.files == ("c.txt",)


WRONG_FILES = {
    "stepz = 3": "got stepz. Did you mean steps?",
    "resume = true": "got resume.",
    'config = "x"': "got config.",
    "steps = 'x'": "--steps: expected a whole number, got 'x'.",
    "steps = 99999999999": "--steps: expected a whole number from -2147483648 to 2147483647, got 99999999999.",
    "batch_size = 0": "--batch-size: expected a whole number >= 1, got 0.",
    "steps = [[1]]": "expected a text, a number, true, false or a list of them for steps",
    "[model]\ndepth = 3": "got model.",
    "steps = ": "--config: expected TOML in ",
    "a = " + "[" * 5000: "--config: expected TOML in ",
    '"a\\u001b" = 1': "got a\\x1b.",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_wrong_file_is_refused(text, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", config_file(tmp_path, text)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert WRONG_FILES[text] in error
    assert error.count("\n") == 1


def test_a_missing_file_of_options_is_named(tmp_path, capsys):
    path = tmp_path / "none.toml"
    assert main(["train", "--config", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"jax-attention: '{path}': expected a file or folder, got none of this name. Check the path.\n"
    )


def test_devices_are_a_setting_of_the_run():
    settings = parse(["train", "--devices", "1"]).settings
    assert settings.devices_text() == "1 cpu device"
    assert type(settings).from_json(settings.to_json()) == settings


def test_texts_of_settings_from_before_devices():
    settings = parse(["train"]).settings
    saved = settings.to_json()
    del saved["devices"]
    assert type(settings).from_json(saved) == settings
