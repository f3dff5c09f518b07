"""Entry point of the command `jax-attention`, also run by `python -m jax_attention.cli`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import jax_attention
from jax_attention.core.os_errors import describe_os_error, find_os_error
from jax_attention.core.output import Output, print_error, print_line, print_loss, safe_streams
from jax_attention.core.text import printable

MAX_MESSAGE = 2000
"""Characters of an error line; a message that quotes a file could be as long as that file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    The status is that of the command (0 unless it returns another), 1 for an error that the user can correct, shown as
    one line without traceback, 2 for wrong options, or 130 after Ctrl-C. With JAX_ATTENTION_TRACEBACK set, errors keep
    their traceback.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    with safe_streams() as output:
        status = _run(list(arguments), output)
        if not output.required:
            print_loss(output)
        return status


def _run(arguments: list[str], output: Output) -> int:
    try:
        from jax_attention.cli import arguments as parser
        from jax_attention.cli import language, options
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("jax_attention"):
            raise
        return _print_error(
            f"expected the package {error.name}, which is not installed. Install the command line's packages: "
            "pip install 'jax_attention[train,viz]'"
        )
    names: dict[str, str] = {}
    try:
        if arguments[:1] == ["--version"]:
            print_line(f"jax-attention {jax_attention.__version__}")
            return 0
        command = parser.parse(arguments)
        names = options.option_names(type(command))
        # A training goes on without a reader; the other commands have nothing to do without one.
        output.required = not getattr(command, "outlives_reader", False)
        return command.run() or 0
    except language.UsageError as error:
        _print_error(str(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        _print_error("interrupted")
        return 130
    except Exception as error:
        if error is output.failure and isinstance(error, BrokenPipeError):
            return 1  # The reader has seen enough. Not 0, by which `compare` says that the models are equal.
        message = _message(error)
        if message is None or os.environ.get("JAX_ATTENTION_TRACEBACK"):
            raise
        return _print_error(language.translate(message[:MAX_MESSAGE], names) + message[MAX_MESSAGE:])


def _message(error: Exception) -> str | None:
    """The error in words, or None for a bug in the library, whose traceback must stay."""
    from jax_attention.training import TrainingDiverged

    text = str(error)
    if isinstance(error, OSError):
        return describe_os_error(error)
    if ": expected " not in text and (found := find_os_error(text)):
        return describe_os_error(found)  # of a library that writes files in other threads
    if isinstance(error, UnicodeError):
        return f"text: expected UTF-8 in names, paths and texts, got other bytes ({text}). Rename or convert the file."
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        first_line = text.partition("\n")[0] or "none left"
        return (
            f"memory: expected enough for this command, got too little ({first_line}). Choose a smaller model, fewer "
            "tokens or a smaller batch."
        )
    if isinstance(error, OverflowError):
        return f"number: expected one of at most 64 bits, got a larger one ({text})."
    if isinstance(error, (ValueError, ImportError, TrainingDiverged)):
        return text
    # The library's messages about wrong arguments say ": expected ". Any other TypeError is a bug.
    return text if isinstance(error, TypeError) and ": expected " in text else None


def _print_error(message: str) -> int:
    text = printable(message[:MAX_MESSAGE])
    if max(len(message), len(text)) > MAX_MESSAGE:
        text = f"{text[:MAX_MESSAGE]}… ({len(message):,} characters)"
    print_error(f"jax-attention: {text}")
    return 1


if __name__ == "__main__":
    from jax_attention_command import watch_signals

    watch_signals()
    sys.exit(main())
