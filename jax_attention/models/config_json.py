"""A config as JSON and back, its attention rule included: the description that is saved with a checkpoint.

The format is that of version 0.1: `"value"` names the class of a part. Names that changed since then are translated
when they are read.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import jax
import numpy as np

from jax_attention import masks, mods, normalizers, positions, scores
from jax_attention.core.checks import check_instance
from jax_attention.core.struct import UserFunction, is_struct
from jax_attention.models.config import LMConfig
from jax_attention.models.encoder_decoder import EncoderDecoderConfig
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.positions import scaling

MODULES = {
    module.__name__.rpartition(".")[2]: module for module in (scores, mods, masks, normalizers, positions, scaling)
}
"""Modules whose parts can be written, by the name in the JSON."""
STACKS = ("encoder", "decoder")
RENAMED_CLASSES = {
    "masks.PlainMask": "masks.UserMask",
    "mods.PlainMod": "mods.UserMod",
    "normalizers.PlainNormalizer": "normalizers.UserNormalizer",
    "scores.PlainScore": "scores.UserScore",
}
RENAMED_MODULES = {"jax_attention.nn.rules": "jax_attention.nn.scores"}
RENAMED_VALUES = {("qk_norm", "joined"): "all_heads"}
"""Names of version 0.1 -> names of today."""


def config_to_json(config: LMConfig | EncoderDecoderConfig | RNNConfig) -> dict[str, Any]:
    """A config as a dictionary of JSON types.

        {"vocab_size": 65, …, "mask": {"value": "masks.Causal", "fields": {"offset": 0}}, …}

    Args:
        config: a config of any model; functions in its rule must be importable by name.

    Returns:
        A dictionary for `json.dumps`; arrays are written with their dtype, floats so that they come back exactly.

    Raises:
        ValueError: if the rule holds a function that cannot be imported again: a lambda, a closure.

    Example:
        >>> from jax_attention import models
        >>> models.config_to_json(models.tiny(vocab_size=65))["mask"]
        {'value': 'masks.Causal', 'fields': {'offset': 0}}

    """
    kinds = (LMConfig, EncoderDecoderConfig, RNNConfig)
    check_instance("config", config, kinds, "models.LMConfig(...), EncoderDecoderConfig(...) or RNNConfig(...)")
    if isinstance(config, EncoderDecoderConfig):
        stacks = {name: config_to_json(getattr(config, name)) for name in STACKS}
        return stacks | {"shared_embedding": config.shared_embedding}
    return {field.name: _encode(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)}


def config_from_json(data: dict[str, Any]) -> LMConfig | EncoderDecoderConfig | RNNConfig:
    """The config that `config_to_json` wrote, in this version or in 0.1.

        config_from_json(config_to_json(config)) = config

    Args:
        data: the dictionary, after `json.loads`.

    Returns:
        The config; fields that are not in the dictionary take their defaults.

    Raises:
        ValueError: if a field or a part is unknown, or a function cannot be imported.

    Example:
        >>> from jax_attention import models
        >>> config = models.gemma2()
        >>> models.config_from_json(models.config_to_json(config)) == config
        True

    """
    if set(STACKS) <= data.keys():
        stacks = {name: config_from_json(data[name]) for name in STACKS}
        return EncoderDecoderConfig(**stacks, shared_embedding=data["shared_embedding"])
    kind = RNNConfig if "source_vocab_size" in data else LMConfig
    unknown = sorted(set(data) - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise ValueError(
            f"config: expected fields of {kind.__name__}, got also {', '.join(unknown)}. Of a newer version?"
        )
    return kind(**{name: _decode(name, x) for name, x in data.items()})


def _encode(name: str, x: Any) -> Any:
    if x is None or isinstance(x, (bool, int, str)):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {"float": repr(x)}
    if isinstance(x, tuple):
        return [_encode(name, item) for item in x]
    if isinstance(x, UserFunction):
        return {**_encode_function(name, x.function), "wrapper": _path(type(x))}
    if is_struct(x) and _path(type(x)) is not None:
        fields = {f.name: _encode(f"{name}.{f.name}", getattr(x, f.name)) for f in dataclasses.fields(x)}
        return {"value": _path(type(x)), "fields": fields}
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(x)
        exact = array.astype(np.float64) if array.dtype.kind not in "biu" else array
        return {"array": exact.tolist(), "dtype": str(array.dtype)}
    if callable(x):
        return _encode_function(name, x)
    raise ValueError(f"{name}: expected a part of jax_attention to write as JSON, got {x!r}.")


def _encode_function(name: str, function: Any) -> dict[str, str]:
    path = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    try:
        imported = _import(path)
    except (ImportError, AttributeError, ValueError):
        imported = None
    if imported is not function:
        raise ValueError(
            f"{name}: expected a function that can be imported by name, to be found again from the saved config, got "
            f"{function!r}. Define it at the top of a module, without closing over arrays, or use a built-in part."
        )
    return {"function": path}


def _decode(name: str, x: Any) -> Any:
    if isinstance(x, list):
        return tuple(_decode(name, item) for item in x)
    if not isinstance(x, dict):
        return RENAMED_VALUES.get((name, x), x)
    if "float" in x:
        return float(x["float"])
    if "array" in x:
        return np.asarray(x["array"]).astype(jax.numpy.dtype(x["dtype"]))
    if "function" in x:
        return _decode_function(name, x)
    cls, fields = _class(name, x.get("value")), x.get("fields", {})
    expected = {field.name for field in dataclasses.fields(cls)}
    if set(fields) != expected:
        raise ValueError(f"{name}: expected the fields {sorted(expected)} of {x['value']}, got {sorted(fields)}.")
    return cls(**{field: _decode(f"{name}.{field}", inner) for field, inner in fields.items()})


def _decode_function(name: str, x: dict[str, str]) -> Any:
    try:
        function = _import(x["function"])
    except (ImportError, AttributeError) as error:
        cure = "Put its module on the path."
        raise ValueError(f"{name}: expected to import {x['function']}, got {error}. {cure}") from None
    return _class(name, x["wrapper"])(function) if "wrapper" in x else function


def _class(name: str, path: Any) -> type:
    module, _, class_name = RENAMED_CLASSES.get(str(path), str(path)).partition(".")
    cls = getattr(MODULES.get(module), class_name, None)
    if not isinstance(cls, type):
        raise ValueError(f"{name}: expected a part that this version knows, got {path!r}.")
    return cls


def _path(cls: type) -> str | None:
    """The name of a class in the JSON, such as `masks.Causal`; None for a class of no public module of parts."""
    names = (name for name, module in MODULES.items() if getattr(module, cls.__name__, None) is cls)
    return next((f"{name}.{cls.__name__}" for name in names), None)


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    imported = importlib.import_module(RENAMED_MODULES.get(module, module))
    for attribute in name.split("."):
        imported = getattr(imported, attribute)
    return imported
