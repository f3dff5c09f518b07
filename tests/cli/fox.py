"""A text about a fox, quick settings to train on it, and what tests of commands ask of folders and messages."""

from __future__ import annotations

from jax_attention.cli.main import main

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60
TINY = ["--width", "16", "--depth", "1", "--num-heads", "2", "--context", "16", "--batch-size", "4"]
QUICK = [*TINY, "--tokenizer", "characters", "--steps", "6", "--warmup", "1", "--sample-tokens", "4"]
QUICK += ["--evaluate-every", "3", "--checkpoint-every", "3", "--dropout", "0.1"]


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(arguments, capsys):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("jax-attention: ")
    assert "Traceback" not in printed.err
    return printed.err
