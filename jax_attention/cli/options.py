"""Command-line options of a model: one for every field of `LMConfig`, made from the dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import tyro

from jax_attention.cli.expressions import parse
from jax_attention.models import PRESETS, LMConfig

PresetName = Literal["tiny", "gpt2", "llama", "gemma2"]
EXPRESSIONS = ("score", "mods", "mask", "normalize", "rope", "local_rope")
"""Fields that hold parts of a rule; they are written as expressions."""
FROM_PRESET = "preset"
"""Default of every option: take the field from the preset. None is a choice of its own."""
LEFT_OUT = ("vocab_size", "memory_size")
"""Fields without an option: the tokenizer decides the vocabulary, and a language model has no source."""
TRAINING_FIELDS = ("dropout", "attention_dropout", "scan", "remat", "dtype", "param_dtype")
"""Fields that may change when a model is trained further."""


def argument_help(documented: type) -> dict[str, str]:
    """The help text of each argument, from the Args section of a docstring; none under `python -OO`."""
    doc = inspect.cleandoc(documented.__doc__ or "")
    block = re.search(r"^Args:\n(.*?)\n\n", doc, re.M | re.S)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block[1] if block else "", re.M)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def option_names(command: type) -> dict[str, str]:
    """The option of each field of a command, nested ones included; FILES for positional arguments.

    >>> option_names(ModelOptions)["kv_heads"]
    '--kv-heads'
    """
    names = {}
    for field, kind, marks in _fields(command):
        if dataclasses.is_dataclass(kind):
            names |= option_names(kind)
        elif tyro.conf.Positional in marks:
            names[field] = field.upper()
        else:
            name = next((mark.name for mark in marks if getattr(mark, "name", None)), field)
            names[field] = "--" + name.replace("_", "-")
    return names


def flag_names(command: type) -> set[str]:
    """Fields whose options take no value, nested ones included."""
    inner = [flag_names(kind) for _, kind, _ in _fields(command) if dataclasses.is_dataclass(kind)]
    return {field for field, kind, _ in _fields(command) if kind is bool}.union(*inner)


def _fields(command: type) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Name, type and annotations of each field of a dataclass."""
    hints = typing.get_type_hints(command, include_extras=True)
    fields = [(field.name, hints[field.name]) for field in dataclasses.fields(command)]
    return [
        (name, getattr(x, "__origin__", x) if hasattr(x, "__metadata__") else x, getattr(x, "__metadata__", ()))
        for name, x in fields
    ]


def _model_options() -> type:
    """A frozen dataclass with every field of `LMConfig` as an option; the preset decides the others."""
    texts, hints = argument_help(LMConfig), typing.get_type_hints(LMConfig)
    fields = []
    for field in dataclasses.fields(LMConfig):
        if field.name in LEFT_OUT:
            continue
        kind: Any = str if field.name in EXPRESSIONS else hints[field.name]
        text = texts.get(field.name, "") + (" Written as an expression." if field.name in EXPRESSIONS else "")
        annotated = Annotated[Literal["preset"] | kind, tyro.conf.arg(help=text)]
        fields.append((field.name, annotated, dataclasses.field(default=FROM_PRESET)))
    options = dataclasses.make_dataclass("ModelOptions", fields, frozen=True, kw_only=True)
    options.__module__ = __name__
    options.__doc__ = "Changes to the preset."
    return options


ModelOptions = _model_options()


def model_config(
    preset: PresetName, options: Any, vocab_size: int, own: Mapping[str, Callable] | None = None
) -> LMConfig:
    """The config of a new model: the preset with the changes of the options, in which `own` names may occur."""
    return PRESETS[preset](vocab_size=vocab_size, **_changes(options, own))


def tuned_config(config: LMConfig, options: Any, keep_dtypes: bool = False) -> LMConfig:
    """The config of a model that is trained further; options that change its architecture are refused."""
    changes = _changes(options)
    wrong = [f"--{name.replace('_', '-')}" for name in changes if name not in TRAINING_FIELDS]
    if wrong:
        allowed = ", ".join(f"--{name.replace('_', '-')}" for name in TRAINING_FIELDS)
        raise ValueError(
            f"from: expected no option that makes another model of the folder's, got {', '.join(wrong)}. Of the "
            f"model's options only {allowed} can be changed."
        )
    if keep_dtypes:
        return dataclasses.replace(config, **changes)
    # float32 whatever the folder stores: in half precision the small updates of fine-tuning are rounded away.
    precision = {"dtype": changes.get("param_dtype", "float32"), "param_dtype": "float32"}
    return dataclasses.replace(config, **precision | changes)


def _changes(options: Any, own: Mapping[str, Callable] | None = None) -> dict[str, Any]:
    choices = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {name: parse(name, x, own) if name in EXPRESSIONS else x for name, x in choices.items() if x != FROM_PRESET}
