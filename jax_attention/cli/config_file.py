"""`train --config FILE`: a TOML file with options of the command."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from jax_attention.cli.language import UsageError, did_you_mean
from jax_attention.cli.options import flag_names, option_names
from jax_attention.core.text import list_names, quote, quote_path

NOT_IN_A_FILE = ("config", "resume")
"""Options that say what to do with a file or a folder, and are no settings."""


def config_arguments(path: Path, command: type) -> list[str]:
    """The options of a TOML file as they would be written on the command line."""
    try:
        contents = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config: expected TOML in {quote_path(path)}, got something else ({error}).") from None
    names = {name: option for name, option in option_names(command).items() if name not in NOT_IN_A_FILE}
    keys = {option.removeprefix("--").lower(): name for name, option in names.items()}
    positional, options = [], []
    for key, x in contents.items():
        name = keys.get(key.replace("_", "-"))
        if name is None:
            hint = did_you_mean(key.replace("_", "-"), keys) or f" It has the options of {command.__name__.lower()}."
            raise UsageError(f"--config: expected options in {quote_path(path)}, got {list_names([key])}.{hint}")
        words = _words(key, x, path)
        if not names[name].startswith("--"):
            positional += words
        elif name in flag_names(command) and isinstance(x, bool):
            options += [names[name]] if x else []
        elif len(words) == 1:
            options.append(f"{names[name]}={words[0]}")  # also for a text that begins with a hyphen
        else:
            options += [names[name], *words]
    return [*positional, *options]


def _words(key: str, x: Any, path: Path) -> list[str]:
    """The value of an option as words of a command line."""
    words = x if isinstance(x, list) else [x]
    if not all(isinstance(word, (str, int, float)) for word in words):
        raise UsageError(
            f"--config: expected a text, a number, true, false or a list of them for {list_names([key])} in "
            f"{quote_path(path)}, got {quote(x)}. Options have no tables."
        )
    return [str(word) for word in words]
