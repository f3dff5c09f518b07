"""Messages of the library in the language of the command line: options in place of arguments and of Python."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

ARGUMENTS = {
    "fraction": "--validation-fraction",
    "targets": "--lora-targets",
    "rank": "--lora",
    "num_beams": "--beams",
    "num_return": "--num-samples",
    "stop_strings": "--stop",
    "paths": "FILES",
    "documents": "FILES",
}
"""Arguments of the library whose option has another name."""

OTHER_MEANING = ("config",)
"""Arguments of the library that have the name of an option, and are something else: the config of a model."""

CURES = (
    (r" It is a setting of (LoopConfig|OptimizerConfig)\.", ""),
    (r" It is static under jit\.| \(it is static under jit\)", ""),
    (r"\ba Python (int|number)\b", "a whole number"),
    (r"\ban int (?=[<>])", "a whole number "),
    (r"\b([Uu]se|[Pp]ass|[Ll]eave|as|expected) greedy\(\)", r"\1 --greedy"),
    (r"fewer devices: mesh=training\.data_mesh\(batch_size=\d+\)", "fewer devices: --devices"),
    (r'Call jax\.config\.update\("jax_enable_x64", True\) first', "Set JAX_ENABLE_X64=1 in the environment"),
    (r"\((\w+),\) is", r"\1 is"),
    (r"\bconfig\.(?=\w+ ?=)", ""),
    (r"\bresume=True\b", "--resume"),
    (r'allow_code=\("[^"]+",\) in Python, (--allow-code [\w.]+) on the command line', r"\1, or --rules with its file"),
)
"""Patterns of Python in messages, and what a user of the command line writes instead."""

PYTHON_CURE = re.compile(r"\w+= to |\bjnp\.|\bjax\.|\.astype\(|\btraining\.|\blayout is \[")
"""Advice that only Python code can follow; its sentence is left out."""
QUOTED = re.compile(r"""(?<![\w=])('[^'\n]*'|"[^"\n]*")""")
"""Text of the user in a message; it stays as it is."""
QUOTES = "'\""


class UsageError(ValueError):
    """Error about an option that does not exist, or about a value that it cannot have."""


def translate(message: str, names: Mapping[str, str]) -> str:
    """The message with options in place of arguments; `names` has the option of each argument of the command.

    >>> translate("batch_size: expected an int >= 1, got 0. Give batch_size=4.", {"batch_size": "--batch-size"})
    '--batch-size: expected a whole number >= 1, got 0. Give --batch-size 4.'
    """
    others = {name: option for name, option in ARGUMENTS.items() if option in names.values()}
    names = {name: option for name, option in (others | dict(names)).items() if name not in OTHER_MEANING}
    for pattern, words in CURES:
        message = re.sub(pattern, words, message)
    head = re.match(r"(\w+(?:, \w+)*): ", message)
    if head:
        options = ", ".join(names.get(name, name) for name in head[1].split(", "))
        message = options + message[head.end(1) :]
    first, *others = re.split(r"(?<=[.)]) (?=[A-Z])", message)
    message = " ".join([first, *(sentence for sentence in others if not PYTHON_CURE.search(sentence))])
    pieces = QUOTED.split(message)
    pieces[::2] = [_with_options(piece, names) for piece in pieces[::2]]
    return "".join(pieces)


def _with_options(text: str, names: Mapping[str, str]) -> str:
    """Replace `name = value`, `name='value'`, and names that are no English words because of their underscore."""

    def assignment(found: re.Match) -> str:
        name, value = found.groups()
        return found[0] if name not in names else f"{names[name]} {value.strip(QUOTES)}"

    text = re.sub(r"(?<![\w.(-])(\w+) ?= ?('\w*'|\"\w*\"|[^\s=]+?)(?=[\s,;.]|$)", assignment, text)
    return re.sub(r"(?<![\w./-])[a-z]+(?:_[a-z]+)+(?![\w(/=]|\.\w)", lambda found: names.get(found[0], found[0]), text)


WORDS = (
    (
        r"Error parsing ([^:]+): Exceeds the limit \(\d+ digits\).* value has (\d+) digits.*",
        r"\1: expected a whole number, got one of \2 digits.",
    ),
    (r"Error parsing ([^:]+): invalid literal for int\(\) with base 10: (.*)", r"\1: expected a whole number, got \2."),
    (r"Error parsing ([^:]+): could not convert string to float: (.*)", r"\1: expected a number, got \2."),
    (
        r"Error parsing ([^:]+): no type matching (.+) could be instantiated from \[(.*?)\]\..*",
        r"\1: expected \2, got \3.",
    ),
    (r"Error parsing [^:]*: (\w+(?:, \w+)*: expected .*)", r"\1"),
    (r"Error parsing ([^:]+): (.*)", r"\1: \2"),
    (r"[Ii]nvalid choice (.+) for argument '([^']+)'\. Expected one of \((.*)\)\.", r"\2: expected one of \3, got \1."),
    (r"Missing value for argument '([^']+)'\. Expected 1 values\.", r"\1: expected a value, got none."),
    (r"Missing value for argument '([^']+)'\. Expected (.*)\.", r"\1: expected \2, got fewer."),
)
"""Messages of tyro, and the same ones in the form of this library."""


def usage_message(text: str) -> str:
    """The first paragraph of a box that tyro printed, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.strip(" │╭╮╰╯|") for line in text.splitlines()]
    rules = [i for i, line in enumerate(lines) if line and set(line) <= set("─-")]
    title_ends = 1 if not rules or rules[0] > 1 else rules.pop(0) + 1
    paragraph = " ".join(line for line in lines[title_ends : rules[0] if rules else None] if line)
    if paragraph.startswith("Missing from "):
        return f"expected {', '.join(re.findall(r'PATH|--[a-z-]+(?= [A-Z])', paragraph))}, got no value."
    for pattern, words in WORDS:
        if found := re.fullmatch(pattern, paragraph):
            return re.sub(r"(?<=expected one of ).*(?=, got )", _sort_choices, found.expand(words))
    return paragraph


def _sort_choices(found: re.Match) -> str:
    return ", ".join(sorted(found[0].replace("'", "").split(", ")))


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A sentence that names the most similar of some names, or nothing.

    >>> did_you_mean("--stepz", ["--steps", "--seed"])
    ' Did you mean --steps?'
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]}?" if close else ""
