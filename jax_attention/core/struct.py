"""Immutable dataclasses that are pytrees: the parts of a rule, caches and training states.

Scores, mods, masks and normalizers are *parts*: structs whose array fields name the axes that an array has *after* its
batch dimensions, for example `array_field("H", "A")` for a weight matrix or `array_field("T")` for one number per query
row. Everything before the named axes broadcasts against the batch dimensions of the scores (batch, heads). That one
declaration lets `attend` check shapes, split the head axis under grouped queries, and slice tiles.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

C = TypeVar("C")
AXES, PER_SEQUENCE, LAYOUT, PART = "axes", "per_sequence", "layout", "part"
"""Metadata keys of fields, read by `core/parts.py`."""
_DATA = "data"


def array_field(
    *axes: str, default: Any = dataclasses.MISSING, per_sequence: bool = False, layout: bool = False
) -> Any:
    """A field that holds an array with any batch dimensions followed by the named `axes`.

    `per_sequence` marks data about one sequence (lengths, segment ids). Such an array must have either no batch
    dimension or all of them: a bare `[B]` would otherwise be read as one entry per head, and with B = N nothing would
    notice. `layout` marks data that decides which tiles are computed: a NumPy array there is part of the compiled
    program, and another array needs another program; elsewhere it is an argument of the program.
    """
    metadata = {_DATA: True, AXES: axes, PER_SEQUENCE: per_sequence, LAYOUT: layout}
    return dataclasses.field(default=default, metadata=metadata)


def part_field(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds another part, a tuple of parts, or None."""
    return dataclasses.field(default=default, metadata={_DATA: True, PART: True})


def data_field(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds any pytree of arrays, such as the keys of a cache."""
    return dataclasses.field(default=default, metadata={_DATA: True})


@dataclass_transform(frozen_default=True, field_specifiers=(array_field, part_field, data_field, dataclasses.field))
def struct(cls: type[C]) -> type[C]:
    """Class decorator: a frozen dataclass that is a pytree.

    Fields made by `array_field`, `part_field` and `data_field` are its children; all others are static and must be
    hashable. Structs compare by content, so two `causal()` objects are equal and a fresh one never recompiles.

    `jax.tree_util.register_dataclass` is not used: two of its classes with as many fields have equal tree structures
    (jax 0.10 and 0.12 compare neither classes nor names), and once in about a hundred calls `jit` ran the program of
    the other class.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=cls.__repr__ is object.__repr__)(cls)
    cls.__eq__, cls.__hash__ = _equal, _hash
    fields = dataclasses.fields(cls)
    data = [f.name for f in fields if f.metadata.get(_DATA)]
    static = [f.name for f in fields if not f.metadata.get(_DATA)]

    def flatten(x: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(x, name) for name in data), tuple(getattr(x, name) for name in static)

    def flatten_with_keys(x: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, aux = flatten(x)
        return tuple(zip(map(GetAttrKey, data), children, strict=True)), aux

    def unflatten(aux: Any, children: Any) -> Any:
        return cls(**dict(zip(data, children, strict=True)), **dict(zip(static, aux, strict=True)))

    register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def is_struct(x: Any) -> bool:
    """Whether `x` is an instance of a struct (or of any other dataclass)."""
    return dataclasses.is_dataclass(x) and not isinstance(x, type)


def _equal(self: Any, other: Any) -> bool:
    if type(self) is not type(other):
        return NotImplemented
    (left, structure), (right, other_structure) = jax.tree.flatten(self), jax.tree.flatten(other)
    return structure == other_structure and all(map(_same_array, left, right))


def _same_array(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False  # the numbers are not known yet, and comparing tracers would raise
    return getattr(a, "dtype", type(a)) == getattr(b, "dtype", type(b)) and np.array_equal(a, b)


def _hash(self: Any) -> int:
    return hash((type(self), jax.tree.structure(self)))  # without the arrays: they are not hashable, and may be traced
