"""A text, options for a quick training run on it, the files of a folder, and the error line of a command."""

from __future__ import annotations

from jax_attention.cli.__main__ import main

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60
TINY = ["--width", "16", "--depth", "1", "--num-heads", "2", "--context", "16", "--batch-size", "4"]
QUICK = [*TINY, "--tokenizer", "characters", "--steps", "6", "--warmup", "1", "--sample-tokens", "4"]
QUICK += ["--evaluate-every", "3", "--checkpoint-every", "3", "--dropout", "0.1"]


def files_in(folder):
    """Contents of all files below a folder, by relative path."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def error_of(arguments, capsys):
    """The error line of a command that is expected to fail."""
    assert main(arguments) == 1
    printed = capsys.readouterr()
    progress, start, error = printed.err.partition("jax-attention: ")
    assert start
    assert not progress or arguments[0] == "compare"  # the only command that says on standard error what it does
    assert "Traceback" not in error
    return start + error
