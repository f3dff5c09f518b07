"""Command-line arguments become a command; a wrong one ends with one line that says what was expected."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import operator
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jax_attention.cli.compare import Compare
from jax_attention.cli.config_file import config_arguments
from jax_attention.cli.evaluate import Evaluate
from jax_attention.cli.explain import Explain
from jax_attention.cli.export import Export
from jax_attention.cli.generate import Generate
from jax_attention.cli.language import UsageError, did_you_mean, translate, usage_message
from jax_attention.cli.lineage import saved_settings
from jax_attention.cli.options import option_names
from jax_attention.cli.rules import Rules
from jax_attention.cli.show import Show
from jax_attention.cli.train import Train
from jax_attention.cli.verify import Verify
from jax_attention.core.text import list_names, quote, quote_path

PROGRAM = "jax-attention"
COMMANDS: dict[str, type] = {
    "train": Train,
    "generate": Generate,
    "evaluate": Evaluate,
    "show": Show,
    "export": Export,
    "rules": Rules,
    "explain": Explain,
    "compare": Compare,
    "verify": Verify,
}
DESCRIPTION = (
    "Attention rules, and Transformer language models made of them: train, generate, inspect. --version prints the "
    "version."
)
MAX_INT, MAX_SEED = 2**31 - 1, 2**32 - 1
"""Sizes and steps are int32; JAX drops the bits of a seed beyond 32 without a word, so that two seeds would be one."""


def parse(arguments: Sequence[str]) -> Any:
    """Read the arguments into a command, with the defaults of the file that --config names."""
    path, rest = _split_config(arguments)
    command = _parse_with_file(path, rest)
    if isinstance(command, Train) and command.resume and command.out is not None:
        # Once more, with the settings of the run as defaults: the options that are there take their place.
        command = _parse_with_file(path, rest, dataclasses.replace(Train(), settings=saved_settings(command.out)))
    _check_ranges(command, option_names(type(command)))
    return command


def _parse_with_file(path: Path | None, arguments: Sequence[str], default: Train | None = None) -> Any:
    """Parse arguments whose defaults are those of a file of options, if any, and of `default` for what it lacks."""
    if path is None and default is None:
        kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items()]
        return _parse(functools.reduce(operator.or_, kinds), arguments)
    name = f"{PROGRAM} train"
    if path is not None:
        try:
            default = _parse(Train, config_arguments(path, Train), program=name, default=default)
        except UsageError as error:
            raise UsageError(f"{quote_path(path)}: {error}") from None
        default = dataclasses.replace(default, config=path)
    return _parse(Train, arguments[1:], program=name, default=default)


def _split_config(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The last file that `train --config` names, and the other arguments."""
    rest, path = list(arguments), None
    while rest[:1] == ["train"]:
        i = next((i for i, x in enumerate(rest) if x == "--config" or x.startswith("--config=")), None)
        if i is None or rest[i:] == ["--config"]:
            break
        count = 1 if "=" in rest[i] else 2
        path = path or Path(rest[i].partition("=")[2] if count == 1 else rest[i + 1])
        del rest[i : i + count]
    return path, rest


def _parse(kind: Any, arguments: Sequence[str], program: str = PROGRAM, default: Any = None) -> Any:
    """Parse by tyro, whose boxes become one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), _unwrapped_lines(arguments):
            command = tyro.cli(
                kind,
                prog=program,
                description=DESCRIPTION if program == PROGRAM else None,
                args=arguments,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as end:
        if end.code != 2:
            raise
        words = arguments if program == PROGRAM else [program.split()[-1], *arguments]
        raise UsageError(_usage_error(printed.getvalue(), words)) from None
    sys.stderr.write(printed.getvalue())
    return command


@contextlib.contextmanager
def _unwrapped_lines(arguments: Sequence[str]) -> Iterator[None]:
    """Keep tyro from wrapping the lines of an error; help is wrapped to the width of the terminal."""
    if {"-h", "--help"} & set(arguments):
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _usage_error(printed: str, arguments: Sequence[str]) -> str:
    """One line for wrong arguments: the unknown command or option, or what tyro says."""
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f" Help: {PROGRAM} --help."
        return f"expected a command ({', '.join(COMMANDS)}), got {quote(name) if name else 'none'}.{hint}"
    help_hint = f" Help: {PROGRAM} {name} --help."
    names = option_names(COMMANDS[name])
    message = usage_message(printed)
    if message.startswith("Unrecognized"):
        options = [x.partition("=")[0] for x in arguments[1:] if x.startswith("--")]
        wrong = next((x for x in options if x.replace("_", "-") not in (*names.values(), "--help")), None)
        if wrong is None:
            return f"{message.replace('Unrecognized options', 'expected no such argument')}.{help_hint}"
        hint = did_you_mean(wrong.replace("_", "-"), names.values()) or help_hint
        return f"{list_names([wrong])}: expected an option of {PROGRAM} {name}, got an unknown one.{hint}"
    return translate(message, names)


def _check_ranges(command: Any, names: Mapping[str, str]) -> None:
    """Refuse numbers that JAX would not take, or only in part."""
    for field in dataclasses.fields(command):
        x = getattr(command, field.name)
        if dataclasses.is_dataclass(x):
            _check_ranges(x, names)
        low, high = (0, MAX_SEED) if field.name == "seed" else (-MAX_INT - 1, MAX_INT)
        for number in x if isinstance(x, tuple) else (x,):
            if isinstance(number, int) and not low <= number <= high:
                raise UsageError(
                    f"{names[field.name]}: expected a whole number from {low} to {high}, got {quote(number)}."
                )
