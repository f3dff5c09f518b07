"""Short texts of objects: arrays by dtype and shape, and only the fields that differ from their defaults.

A model, a cache or a result is looked at to see what it is made of. Its numbers would fill pages.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, MutableMapping, MutableSequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

C = TypeVar("C")
MAX_ITEMS = 6
"""Longest list, tuple or dictionary that is shown whole."""
MAX_TEXT = 80
"""Longest string, and longest `repr` of a foreign object, that is shown whole."""


def short_repr(cls: type[C]) -> type[C]:
    """Class decorator for named tuples and dataclasses: `repr` is the call without defaults, arrays by dtype and shape.

    >>> import numpy as np
    >>> from typing import Any, NamedTuple
    >>> @short_repr
    ... class Pair(NamedTuple):
    ...     left: Any
    ...     right: Any = None
    >>> Pair(np.ones((2, 3)))
    Pair(left=float64[2,3])
    """
    cls.__repr__ = describe_fields
    cls.repr_is_short = True
    return cls


class FactoryRepr:
    """Base of structs that print as the call of their factory: `sliding_window(left=2)`."""

    repr_is_short = True

    def __repr__(self) -> str:
        name = type(self).__name__
        snake = "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))
        return describe_fields(self, snake)


def describe_fields(x: Any, name: str | None = None) -> str:
    """A dataclass or a named tuple as a call, without the fields that have their defaults."""
    if dataclasses.is_dataclass(x):
        fields = [field for field in dataclasses.fields(x) if field.repr]
        names = [field.name for field in fields]
        defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
        made = {field.name: field.default_factory for field in fields}
        defaults |= {key: make() for key, make in made.items() if make is not dataclasses.MISSING}
    else:
        names, defaults = x._fields, x._field_defaults
    texts = changed_texts({field: getattr(x, field) for field in names}, defaults)
    return f"{name or type(x).__name__}({', '.join(f'{key}={text}' for key, text in texts.items())})"


def changed_texts(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """The arguments as texts, without those whose text is that of the default: `==` of arrays would be an array."""
    texts = {key: describe(x) for key, x in arguments.items()}
    return {key: text for key, text in texts.items() if key not in defaults or text != describe(defaults[key])}


def describe(x: Any) -> str:
    """A short text of anything: numbers as they are, arrays by dtype and shape, functions by name, long lists cut.

    >>> import numpy as np
    >>> describe({"weights": (np.ones((2, 3)), np.ones(3)), "step": np.int32(4), "activation": np.tanh})
    "{'weights': (float64[2,3], float64[3]), 'step': 4, 'activation': tanh}"
    >>> describe([np.ones(2)] * 100)
    '[float64[2]] * 100'
    """
    if getattr(type(x), "repr_is_short", False):
        return repr(x)
    if hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, type):
        return _describe_array(x)
    if isinstance(x, str):
        return repr(x) if len(x) <= MAX_TEXT else f"{x[:MAX_TEXT]!r}…"
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return describe_fields(x)
    if isinstance(x, (dict, MutableMapping)):
        return "{" + ", ".join(_shorten([f"{key!r}: {describe(item)}" for key, item in x.items()])) + "}"
    if isinstance(x, (tuple, MutableSequence)):  # `nnx.List`, in the place of a tuple, prints like one
        return _describe_sequence([describe(item) for item in x], "[]" if isinstance(x, list) else "()")
    if isinstance(x, np.dtype):
        return x.name
    if isinstance(x, functools.partial):
        return f"partial({describe(x.func)})"
    if callable(x) and not dataclasses.is_dataclass(x) and hasattr(x, "__name__"):
        return x.__name__  # the repr of a function is its address
    if hasattr(type(x).__repr__, "__wrapped__") and dataclasses.is_dataclass(x):  # dataclasses made this repr
        return describe_fields(x)
    text = repr(x)
    return text if len(text) <= MAX_TEXT and "\n" not in text else f"{type(x).__name__}(...)"


def _describe_array(x: Any) -> str:
    if x.shape == () and _has_value(x):
        return repr(x.item())
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _has_value(x: Any) -> bool:
    """Whether this is a number that can be read: no tracer, random key, donated array or part of another process."""
    if isinstance(x, jax.Array):
        if isinstance(x, jax.core.Tracer) or x.is_deleted() or not x.is_fully_addressable:
            return False
    elif not isinstance(x, (np.ndarray, np.generic)):
        return False
    return jnp.issubdtype(x.dtype, np.number) or x.dtype == np.bool_


def _describe_sequence(texts: list[str], brackets: str) -> str:
    start, end = brackets
    if len(texts) > 1 and len(set(texts)) == 1 and len(texts[0]) > len("None"):
        return f"{_describe_sequence(texts[:1], brackets)} * {len(texts)}"
    comma = "," * (start == "(" and len(texts) == 1)
    return f"{start}{', '.join(_shorten(texts))}{comma}{end}"


def _shorten(texts: list[str]) -> list[str]:
    """The first and the last of many texts, and how many there are."""
    return texts if len(texts) <= MAX_ITEMS else [*texts[:2], f"... {len(texts)} in all ...", texts[-1]]
