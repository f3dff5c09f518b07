"""A config as JSON and back, the values of its rule included: what stands beside a checkpoint."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import jax
import numpy as np

from jax_attention import masks, mods, normalizers, positions, scores
from jax_attention.core.checks import check_instance
from jax_attention.core.parts import UserFunction
from jax_attention.core.struct import is_struct
from jax_attention.models.config import LMConfig
from jax_attention.models.encoder_decoder import EncoderDecoderConfig
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.positions import scaling

FLOORS = (scores, mods, masks, normalizers, positions, scaling)
HALVES = ("encoder", "decoder")
HOMES = {module.__name__.rpartition(".")[2]: module for module in FLOORS}


def config_to_json(config: LMConfig | EncoderDecoderConfig | RNNConfig) -> dict[str, Any]:
    """A config as a dictionary of JSON types.

        {"vocab_size": 65, …, "mask": {"value": "masks.Causal", "fields": {"offset": 0}}, …}

    Args:
        config: any config, also of a pair; plain functions in its rule must be importable by name.

    Returns:
        A dictionary for `json.dumps`; arrays are written with their dtype, floats so that they come back exactly.

    Raises:
        ValueError: if the rule holds a function that cannot be found again: a lambda, a closure.

    Example:
        >>> from jax_attention import models
        >>> models.config_to_json(models.tiny(vocab_size=65))["mask"]
        {'value': 'masks.Causal', 'fields': {'offset': 0}}

    Reference:
        None; our own format.
    """
    kinds = (LMConfig, EncoderDecoderConfig, RNNConfig)
    check_instance("config", config, kinds, "models.LMConfig(...), EncoderDecoderConfig(...) or RNNConfig(...)")
    if isinstance(config, EncoderDecoderConfig):
        halves = {name: config_to_json(getattr(config, name)) for name in HALVES}
        return halves | {"shared_embedding": config.shared_embedding}
    return {field.name: _encode(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)}


def config_from_json(data: dict[str, Any]) -> LMConfig | EncoderDecoderConfig | RNNConfig:
    """The config that `config_to_json` wrote.

        config_from_json(config_to_json(config)) = config

    Args:
        data: the dictionary.

    Returns:
        The config; fields that are not in the dictionary take their defaults.

    Raises:
        ValueError: if a field or a value is unknown, or a function cannot be imported.

    Example:
        >>> from jax_attention import models
        >>> config = models.gemma2()
        >>> models.config_from_json(models.config_to_json(config)) == config
        True

    Reference:
        See `config_to_json`.
    """
    if set(HALVES) <= data.keys():
        halves = {name: config_from_json(data[name]) for name in HALVES}
        return EncoderDecoderConfig(**halves, shared_embedding=data["shared_embedding"])
    kind = RNNConfig if "source_vocab_size" in data else LMConfig
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(data) - known)
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
    raise ValueError(f"{name}: expected a value of jax_attention to write as JSON, got {x!r}.")


def _encode_function(name: str, function: Any) -> dict[str, str]:
    path = f"{getattr(function, '__module__', None)}:{getattr(function, '__qualname__', None)}"
    try:
        found = _import(path)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not function:
        raise ValueError(
            f"{name}: expected a function that can be imported by name, to be found again from the saved config, got "
            f"{function!r}. Define it at the top of a module, without closing over arrays, or use a built-in value."
        )
    return {"function": path}


def _decode(name: str, x: Any) -> Any:
    if isinstance(x, list):
        return tuple(_decode(name, item) for item in x)
    if not isinstance(x, dict):
        return x
    if "float" in x:
        return float(x["float"])
    if "array" in x:
        return np.asarray(x["array"]).astype(jax.numpy.dtype(x["dtype"]))
    if "function" in x:
        return _decode_function(name, x)
    cls, fields = _class(name, x.get("value")), x.get("fields", {})
    own = {field.name for field in dataclasses.fields(cls)}
    if set(fields) != own:
        raise ValueError(f"{name}: expected the fields {sorted(own)} of {x['value']}, got {sorted(fields)}.")
    return cls(**{field: _decode(f"{name}.{field}", inner) for field, inner in fields.items()})


def _decode_function(name: str, x: dict[str, str]) -> Any:
    try:
        function = _import(x["function"])
    except (ImportError, AttributeError) as error:
        cure = "Put its module on the path."
        raise ValueError(f"{name}: expected to import {x['function']}, got {error}. {cure}") from None
    return _class(name, x["wrapper"])(function) if "wrapper" in x else function


def _class(name: str, path: Any) -> type:
    home, _, kind = str(path).partition(".")
    cls = getattr(HOMES.get(home), kind, None)
    if not isinstance(cls, type):
        raise ValueError(f"{name}: expected a value that this version knows, got {path!r}.")
    return cls


def _path(cls: type) -> str | None:
    """`masks.Causal`, if one of our floors has it."""
    homes = (home for home, module in HOMES.items() if getattr(module, cls.__name__, None) is cls)
    return next((f"{home}.{cls.__name__}" for home in homes), None)


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
