"""Dataclasses as pytrees.

`jax.tree_util.register_dataclass` does the same, but two of its classes with as many fields have equal structures (jax
0.10 and 0.12 compare neither classes nor names), and once in about a hundred calls `jit` took the program of the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from jax.tree_util import GetAttrKey, register_pytree_with_keys

C = TypeVar("C")


def pytree(cls: type[C]) -> type[C]:
    """Class decorator: the fields of a dataclass are data, those with `metadata={"static": True}` are structure."""
    fields = dataclasses.fields(cls)
    static = [field.name for field in fields if field.metadata.get("static", False)]
    return register(cls, [field.name for field in fields if field.name not in static], static)


def register(cls: type[C], data: Sequence[str], static: Sequence[str]) -> type[C]:
    """Make a dataclass a pytree; the `static` fields must be hashable."""

    def flatten(x: C) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(x, name) for name in data), tuple(getattr(x, name) for name in static)

    def flatten_with_keys(x: C) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        leaves, structure = flatten(x)
        return tuple(zip(map(GetAttrKey, data), leaves, strict=True)), structure

    def unflatten(structure: tuple[Any, ...], leaves: Sequence[Any]) -> C:
        return cls(**dict(zip(data, leaves, strict=True)), **dict(zip(static, structure, strict=True)))

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls
