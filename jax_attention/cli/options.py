"""Options of the command line that stand for a model: every field of `LMConfig`, read off the dataclass itself."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from typing import Annotated, Any, Literal

import tyro

from jax_attention.cli.expressions import parse
from jax_attention.models import PRESETS, LMConfig

PresetName = Literal["tiny", "gpt2", "llama", "gemma2"]
EXPRESSIONS = ("score", "mods", "mask", "normalize", "rope", "local_rope")
"""Fields that hold values of a rule; written as expressions."""
PRESETS_OWN = "preset"
"""Stands for the value of the preset, so that None can be said."""
LEFT_OUT = ("vocab_size", "memory_size")
"""Fields without an option: the tokenizer decides the one, and no text here has a source to remember."""
OF_TRAINING = ("dropout", "attention_dropout", "scan", "remat", "dtype", "param_dtype")
"""Fields that may differ from those of the model that a training starts from."""


def argument_help(documented: type) -> dict[str, str]:
    """Name -> text, from the Args section of a docstring."""
    doc = inspect.cleandoc(documented.__doc__ or "")
    block = re.search(r"^Args:\n(.*?)\n\n", doc, re.M | re.S)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block[1] if block else "", re.M)
    return {name: re.sub(r"\s+", " ", text) for name, text in found}


def _model_options() -> type:
    """A frozen dataclass with every field of `LMConfig` as an option; unless given, the preset decides."""
    texts, hints = argument_help(LMConfig), typing.get_type_hints(LMConfig)
    fields = []
    for field in dataclasses.fields(LMConfig):
        if field.name in LEFT_OUT:
            continue
        kind: Any = str if field.name in EXPRESSIONS else hints[field.name]
        text = texts[field.name] + (" Written as an expression." if field.name in EXPRESSIONS else "")
        annotated = Annotated[Literal["preset"] | kind, tyro.conf.arg(help=text)]
        fields.append((field.name, annotated, dataclasses.field(default=PRESETS_OWN)))
    made = dataclasses.make_dataclass("ModelOptions", fields, frozen=True, kw_only=True)
    made.__module__ = __name__
    made.__doc__ = "Changes to the preset."
    return made


ModelOptions = _model_options()


def model_config(preset: PresetName, options: Any, vocab_size: int) -> LMConfig:
    """The config that a preset and options describe."""
    return PRESETS[preset](vocab_size=vocab_size, **_changes(options))


def tuned_config(config: LMConfig, options: Any) -> LMConfig:
    """The config of a model that is trained further; what would make another model of it is refused."""
    changes = _changes(options)
    wrong = [f"--{name.replace('_', '-')}" for name in changes if name not in OF_TRAINING]
    if wrong:
        allowed = ", ".join(f"--{name.replace('_', '-')}" for name in OF_TRAINING)
        raise ValueError(
            f"from: expected no option that makes another model of the folder's, got {', '.join(wrong)}. Of the "
            f"model's options only {allowed} are left to choose."
        )
    # Not as stored: half precision has too few digits for the small steps of fine-tuning.
    precision = {"dtype": changes.get("param_dtype", "float32"), "param_dtype": "float32"}
    return dataclasses.replace(config, **precision | changes)


def _changes(options: Any) -> dict[str, Any]:
    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    return {name: parse(name, x) if name in EXPRESSIONS else x for name, x in given.items() if x != PRESETS_OWN}
