"""A config as JSON and back, its attention rule included: the description that is saved with a checkpoint.

The format is that of version 0.1: `"value"` names the class of a part. Names that changed since then are translated
when they are read. Parts and functions of other modules are named `module:name`, and imported only if the reader allows
that module.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jax_attention import masks, mods, normalizers, positions, scores
from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.foreign_files import MAX_DEPTH, json_depth
from jax_attention.core.struct import UserFunction, is_struct
from jax_attention.core.text import list_names, quote
from jax_attention.models.config import LMConfig
from jax_attention.models.encoder_decoder import EncoderDecoderConfig
from jax_attention.models.rnn_config import RNNConfig
from jax_attention.positions import scaling

MODULES = {
    module.__name__.rpartition(".")[2]: module for module in (scores, mods, masks, normalizers, positions, scaling)
}
"""Modules whose parts can be written, by the name in the JSON."""
STACKS = ("encoder", "decoder")
LIBRARY = "jax_attention"
LIBRARY_PARTS = tuple(f"{LIBRARY}.{name}" for name in ("scores", "mods", "masks", "normalizers", "positions", "nn"))
"""Modules of the library that a config may name; the others hold functions that do something."""
HALF = (jax.numpy.dtype("bfloat16"), jax.numpy.dtype("float16"))
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
        config: a config of any model; functions and classes of parts in its rule must be importable by name.

    Returns:
        A dictionary for `json.dumps`; arrays are written with their dtype, floats so that they come back exactly.

    Raises:
        ValueError: if the rule holds a function or a part that cannot be imported again: a lambda, a closure, a part
            whose class is defined inside a function.

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


def config_from_json(
    data: dict[str, Any], allow_code: Iterable[str] = ()
) -> LMConfig | EncoderDecoderConfig | RNNConfig:
    """The config that `config_to_json` wrote, in this version or in 0.1.

        config_from_json(config_to_json(config)) = config

    Nothing that the dictionary names is imported or called, except from this library and from `allow_code`.

    Args:
        data: the dictionary, after `json.loads`.
        allow_code: names of modules whose functions and parts the dictionary may name; modules inside them too. Their
            code runs when they are imported: allow only what you trust.

    Returns:
        The config; fields that are not in the dictionary take their defaults.

    Raises:
        ValueError: if a field or a part is unknown or of another type, or a function is of a module that is not
            allowed or cannot be imported.

    Example:
        >>> from jax_attention import models
        >>> config = models.gemma2()
        >>> models.config_from_json(models.config_to_json(config)) == config
        True

    """
    fail_unless(not isinstance(allow_code, str), "allow_code: expected names of modules, got one text. Pass (name,).")
    check_instance("config", data, dict, "the dictionary that config_to_json makes")
    fail_unless(json_depth(data) <= MAX_DEPTH, f"config: expected at most {MAX_DEPTH} levels of brackets, got more.")
    return _config(data, PartReader((*LIBRARY_PARTS, *allow_code)))


def _config(data: dict[str, Any], reader: PartReader) -> LMConfig | EncoderDecoderConfig | RNNConfig:
    if set(STACKS) <= data.keys():
        unknown = sorted(map(str, data.keys() - {*STACKS, "shared_embedding"}))
        fail_unless(not unknown, f"config: expected encoder, decoder and shared_embedding, got {list_names(unknown)}.")
        for name in STACKS:
            check_instance(name, data[name], dict, "a config as a dictionary")
        stacks = {name: _config(data[name], reader) for name in STACKS}
        return EncoderDecoderConfig(**stacks, shared_embedding=data.get("shared_embedding", False))
    kind = RNNConfig if "source_vocab_size" in data else LMConfig
    names = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(map(str, data.keys() - names)):
        raise ValueError(
            f"config: expected fields of {kind.__name__}, got also {list_names(unknown)}. Of a newer version?"
        )
    required = {field.name for field in dataclasses.fields(kind) if _is_required(field)}
    if missing := sorted(required - data.keys()):
        raise ValueError(f"config: expected the fields of {kind.__name__}, got none for {list_names(missing)}.")
    fields = {name: reader.decode(name, x) for name, x in data.items()}
    return kind(**fields | {name: new for (name, old), new in RENAMED_VALUES.items() if data.get(name) == old})


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _encode(name: str, x: Any) -> Any:
    if x is None or isinstance(x, (bool, int, str)):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {"float": repr(x)}
    if isinstance(x, tuple):
        return [_encode(name, item) for item in x]
    if isinstance(x, UserFunction):
        return {**_encode_function(name, x.function), "wrapper": _path(type(x))}
    if is_struct(x) and (path := _path(type(x))) is not None:
        fields = {f.name: _encode(f"{name}.{f.name}", getattr(x, f.name)) for f in dataclasses.fields(x) if f.init}
        return {"value": path, "fields": fields}
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        array = np.asarray(x)
        exact = array.astype(np.float64) if array.dtype.kind not in "biu" else array
        return {"array": exact.tolist(), "dtype": str(array.dtype)}
    if callable(x):
        return _encode_function(name, x)
    raise ValueError(f"{name}: expected a part of jax_attention to write as JSON, got {x!r}.")


def _encode_function(name: str, function: Any) -> dict[str, str]:
    path = _import_path(function)
    if path is None:
        raise ValueError(
            f"{name}: expected a function that can be imported by name, to be found again from the saved config, got "
            f"{function!r}. Define it at the top of a module, without closing over arrays, or use a built-in part."
        )
    return {"function": path}


def _path(cls: type) -> str | None:
    """The name of a class in the JSON: `masks.Causal` for a part of this library, `module:Class` for any other class
    that can be imported, else None.
    """
    names = (name for name, module in MODULES.items() if getattr(module, cls.__name__, None) is cls)
    return next((f"{name}.{cls.__name__}" for name in names), _import_path(cls))


def _import_path(x: Any) -> str | None:
    """`module:name` of a function or class that can be imported again, else None."""
    path = f"{getattr(x, '__module__', None)}:{getattr(x, '__qualname__', None)}"
    try:
        return path if _import(path) is x else None
    except (ImportError, AttributeError, ValueError):
        return None


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    imported = importlib.import_module(module)
    for attribute in name.split("."):
        imported = getattr(imported, attribute)
    return imported


# --- Reading ---------------------------------------------------------------------------------------------------------


class PartReader:
    """Decodes the fields of a config. Only modules in `allowed`, and those inside them, are imported."""

    def __init__(self, allowed: tuple[str, ...]):
        self.allowed = allowed

    def decode(self, name: str, x: Any) -> Any:
        """The value of a field from its JSON."""
        if isinstance(x, list):
            return tuple(self.decode(name, item) for item in x)
        if not isinstance(x, dict):
            return x
        if "float" in x:
            fail_unless(x["float"] in ("inf", "-inf", "nan"), f"{name}: expected inf, -inf or nan, got {quote(x)}.")
            return float(x["float"])
        if "array" in x:
            return _decode_array(name, x)
        if "function" in x:
            function = self._imported(name, x["function"])
            fail_unless(callable(function), f"{name}: expected a function, got {quote(x['function'])}, which is none.")
            return self._build(name, x["wrapper"], {"function": function}) if "wrapper" in x else function
        fields = x.get("fields", {})
        check_instance(name, fields, dict, "a part with fields")
        return self._build(name, x.get("value"), {key: self.decode(f"{name}.{key}", y) for key, y in fields.items()})

    def _build(self, name: str, path: Any, fields: dict[str, Any]) -> Any:
        cls = self._class(name, path)
        expected = {field.name for field in dataclasses.fields(cls) if field.init}
        if "function" not in fields or not issubclass(cls, UserFunction):
            shown = f"the fields {sorted(expected)} of {path}, got {quote(sorted(fields))}"
            fail_unless(set(fields) == expected, f"{name}: expected {shown}.")
        known = dataclasses.fields(cls) if cls.__module__.startswith(f"{LIBRARY}.") else ()
        wrong = [f.name for f in known if f.name in fields and not _fits(f.type, fields[f.name])]
        fail_unless(not wrong, f"{name}: expected fields of {path} of their types, got {list_names(wrong)} of others.")
        try:
            return cls(**fields)
        except (ValueError, TypeError):
            raise
        except Exception as error:  # the code of a part may raise anything for fields of other types
            raise ValueError(f"{name}: expected fields that {path} takes, got {quote(fields)} ({error}).") from None

    def _class(self, name: str, path: Any) -> type:
        if isinstance(path, str) and ":" in path:
            cls = self._imported(name, path)
        else:
            module, _, class_name = RENAMED_CLASSES.get(str(path), str(path)).partition(".")
            cls = getattr(MODULES.get(module), class_name, None)
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            raise ValueError(f"{name}: expected a part that this version knows, got {quote(path)}.")
        return cls

    def _imported(self, name: str, path: Any) -> Any:
        """A function or class of an allowed module; what the module has imported from others is not allowed with it."""
        fail_unless(
            isinstance(path, str) and path.count(":") == 1,
            f"{name}: expected module:name, got {quote(path)}.",
        )
        module, _, attribute = path.partition(":")
        module = RENAMED_MODULES.get(module, module)
        self._check_allowed(name, path, module)
        try:
            imported = _import(f"{module}:{attribute}")
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{name}: expected to import {quote(path)[1:-1]}, got {error}. Put its module on the path."
            ) from None
        self._check_allowed(name, path, getattr(imported, "__module__", None) or "")
        return imported

    def _check_allowed(self, name: str, path: str, module: str) -> None:
        is_allowed = any(module == one or module.startswith(f"{one}.") for one in self.allowed)
        shown = quote(module)[1:-1]
        fail_unless(module != "", f"{name}: expected a function or class of a module, got {quote(path)}.")
        fail_unless(
            is_allowed,
            f"{name}: expected a part of {LIBRARY}, got {quote(path)}, code of the module {shown}, which is not "
            f'allowed to run. If you trust it: allow_code=("{shown}",) in Python, --allow-code {shown} on the command '
            "line.",
        )


TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str, "None": type(None)}


def _fits(annotation: Any, x: Any) -> bool:
    """Whether a decoded value may be in a field of the library with this annotation, which is a text there."""
    for one in str(annotation).split(" | "):
        is_number = isinstance(x, (int, float)) and not isinstance(x, bool)
        if one == "jax.Array":
            fits = is_number or isinstance(x, np.ndarray)
        elif one == "tuple[int, int]":
            fits = isinstance(x, tuple) and len(x) == 2 and all(type(item) is int for item in x)
        elif one in TYPES:
            fits = isinstance(x, TYPES[one]) and (one == "bool" or not isinstance(x, bool))
        else:
            fits = not (is_number or isinstance(x, (bool, str, tuple)) or x is None)
        if fits:
            return True
    return False


def _decode_array(name: str, x: dict[str, Any]) -> np.ndarray:
    try:
        numbers, dtype = np.asarray(x["array"]), jax.numpy.dtype(x.get("dtype"))
    except (ValueError, TypeError):
        numbers, dtype = np.asarray(None), None
    is_array = numbers.dtype.kind in "biuf" and (dtype in HALF or dtype.kind in "biuf")
    fail_unless(is_array, f"{name}: expected an array of numbers and its dtype, got {quote(x)}.")
    with np.errstate(all="ignore"):  # numbers that do not fit become infinite
        return numbers.astype(dtype)
