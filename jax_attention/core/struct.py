"""Immutable dataclasses that are pytrees: the parts of a rule, caches and training states.

Scores, mods, masks and normalizers are *parts*: structs whose array fields name the axes that an array has *after* its
batch dimensions, for example `array_field("H", "A")` for a weight matrix or `array_field("T")` for one number per query
row. Everything before the named axes broadcasts against the batch dimensions of the scores (batch, heads). That one
declaration lets `attend` check shapes, split the head axis under grouped queries, and slice tiles.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from jax_attention.core.short_repr import describe, short_repr

C = TypeVar("C")
_DATA, _AXES, _PER_SEQUENCE, _LAYOUT, _PART = "data", "axes", "per_sequence", "layout", "part"
"""Metadata keys of fields."""


def array_field(
    *axes: str, default: Any = dataclasses.MISSING, per_sequence: bool = False, layout: bool = False
) -> Any:
    """A field of a struct that holds an array: any batch dimensions, followed by the named axes.

    The batch dimensions broadcast against those of the scores, batch and heads: `[N]` is one entry per head, `[B, 1]`
    one per batch element. A part sees them lined up with the scores, and the axes "T" and "S" cut to its tile.

    Args:
        axes: names of the axes after the batch dimensions. "T" and "S" are those of queries and keys, which are cut
            into tiles; "Hq" and "Hk" are the features of a query and of a key, whose sizes are checked. Any other axis
            is kept whole. Without a name the array has one number for each batch element: see `per_tile`.
        default: as in a dataclass.
        per_sequence: marks data about one sequence (lengths, segment ids). Such an array must have either no batch
            dimension or all of them: a bare `[B]` would otherwise be read as one entry per head, and with B = N nothing
            would notice.
        layout: marks data that decides which tiles are computed: a NumPy array there is part of the compiled program,
            and another array needs another program; elsewhere it is an argument of the program.

    Returns:
        A field of a dataclass.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention.parts import Mod, array_field, per_tile, struct
        >>> @struct
        ... class RowBias(Mod):
        ...     rows: jax.Array = array_field("T")
        ...     def __call__(self, scores, q_pos, k_pos):
        ...         return scores + self.rows[..., None]
        >>> RowBias(jnp.zeros(3))
        row_bias(rows=float32[3])
    """
    metadata = {_DATA: True, _AXES: axes, _PER_SEQUENCE: per_sequence, _LAYOUT: layout}
    return dataclasses.field(default=default, metadata=metadata)


def part_field(default: Any = dataclasses.MISSING) -> Any:
    """A field of a struct that holds another part, a tuple of parts, or None.

    Args:
        default: as in a dataclass.

    Returns:
        A field of a dataclass.

    Example:
        >>> from jax_attention import masks
        >>> from jax_attention.parts import Mask, part_field, struct
        >>> @struct
        ... class Mirrored(Mask):
        ...     mask: Mask = part_field()
        ...     def __call__(self, q_pos, k_pos):
        ...         return self.mask(k_pos, q_pos)
        >>> Mirrored(masks.causal())
        mirrored(mask=causal())
    """
    return dataclasses.field(default=default, metadata={_DATA: True, _PART: True})


def data_field(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds any pytree of arrays, such as the keys of a cache."""
    return dataclasses.field(default=default, metadata={_DATA: True})


@dataclass_transform(frozen_default=True, field_specifiers=(array_field, part_field, data_field, dataclasses.field))
def struct(cls: type[C]) -> type[C]:
    """Class decorator: a frozen dataclass that is a pytree.

    Fields made by `array_field`, `part_field` and `data_field` are its children; all others are static and must be
    hashable. Structs compare by content, so two `causal()` objects are equal and a fresh one never recompiles.

    Args:
        cls: a class with annotated fields, as for `dataclasses.dataclass`.

    Returns:
        The class.

    Example:
        >>> import jax
        >>> from jax_attention.parts import Mod, array_field, per_tile, struct
        >>> @struct
        ... class Scaled(Mod):
        ...     factor: jax.Array | float = array_field()
        ...     def __call__(self, scores, q_pos, k_pos):
        ...         return scores * per_tile(self.factor)
        >>> Scaled(2.0), Scaled(2.0) == Scaled(2.0), jax.tree.leaves(Scaled(2.0))
        (scaled(factor=2.0), True, [2.0])
    """
    # Not `jax.tree_util.register_dataclass`: two of its classes with as many fields have equal tree structures (jax
    # 0.10 and 0.12 compare neither classes nor names), and once in about a hundred calls `jit` ran the program of the
    # other class.
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    if cls.__repr__ is object.__repr__:
        cls = short_repr(cls)
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


# --- The arrays inside a part --------------------------------------------------------------------------------------


@short_repr
class NamedArray(NamedTuple):
    """One array of a part: its path for messages, the array, and the options of its `array_field`."""

    name: str
    array: Any
    axes: tuple[str, ...]
    per_sequence: bool
    layout: bool


def named_arrays(x: Any, prefix: str = "") -> list[NamedArray]:
    """All arrays inside a part, nested parts included."""
    arrays: list[NamedArray] = []

    def collect(entry: NamedArray) -> Any:
        arrays.append(entry)
        return entry.array

    map_arrays(collect, x, prefix)
    return arrays


def find_parts(kind: type | tuple[type, ...], parts: Any) -> list[Any]:
    """All parts of a class, also those combined by `& | ~`."""

    def is_kind(x: Any) -> bool:
        return isinstance(x, kind)

    return [x for x in jax.tree.leaves(parts, is_leaf=is_kind) if is_kind(x)]


def align(x: Any, rank: int, dtype: Any, groups: tuple[int, int] | None = None) -> Any:
    """Give every array inside `x` exactly `rank` batch dimensions by inserting dimensions of size 1 in front.

    `groups = (K, G)` first splits the last batch dimension, the N = K G query heads, in two. User functions keep seeing
    N heads in one axis: their wrapper merges the heads before the call and splits them after it.

    Arrays get the dtype of the scores: half-precision ones because their gradients are sums over many scores, float64
    ones because the operands decide in which precision to compute, not a NumPy number in the rule. A half-precision
    array with an entry for every score stays as it is: it is promoted tile by tile, and a copy would be quadratic.
    """
    dtype = jnp.dtype(dtype)

    def expand(entry: NamedArray) -> Any:
        if isinstance(entry.array, (int, float)):
            return entry.array
        array, shape = entry.array, np.shape(entry.array)
        batch_rank = len(shape) - len(entry.axes)
        entry_per_score = entry.axes == ("T", "S") and batch_rank == rank and 1 not in shape
        is_narrow = array.dtype.itemsize < dtype.itemsize
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != dtype and not (is_narrow and entry_per_score):
            array = array.astype(dtype)
        batch, tail = shape[:batch_rank], shape[batch_rank:]
        if groups and batch:
            batch = (*batch[:-1], *((1, 1) if batch[-1] == 1 else groups))
        return array.reshape((1,) * (rank - len(batch)) + batch + tail)

    def set_heads(function: UserFunction) -> UserFunction:
        return dataclasses.replace(function, heads=groups)

    return map_arrays(expand, x, on_function=set_heads)


def map_arrays(fn: Callable[[NamedArray], Any], x: Any, prefix: str = "", on_function: Callable | None = None) -> Any:
    """The same part with `fn(array)` for every array inside and `on_function(f)` for every `UserFunction`."""
    if isinstance(x, tuple):
        return tuple(map_arrays(fn, item, f"{prefix}[{i}]", on_function) for i, item in enumerate(x))
    if not is_struct(x):
        return x
    if isinstance(x, UserFunction):
        return on_function(x) if on_function else x
    changes = {}
    for field in dataclasses.fields(x):
        content = getattr(x, field.name)
        name = f"{prefix}.{field.name}" if prefix else field.name
        if content is None:
            continue
        if _AXES in field.metadata:
            options = (field.metadata[key] for key in (_AXES, _PER_SEQUENCE, _LAYOUT))
            changes[field.name] = fn(NamedArray(name, content, *options))
        elif _PART in field.metadata:
            changes[field.name] = map_arrays(fn, content, name, on_function)
    return dataclasses.replace(x, **changes)


@dataclasses.dataclass(frozen=True)
class UserFunction:
    """Base of the wrappers around a user's function: the function is static, arrays it closes over are traced.

    `heads` is `(K, G)` where `align` has split the N query heads, and None where it has not.
    """

    function: Callable
    heads: tuple[int, int] | None = None

    def merge_heads(self, x: Any) -> Any:
        """`[..., K, G, t, s] -> [..., N, t, s]`: users' functions see one axis of N heads."""
        if self.heads is None or x.ndim < 4:
            return x
        return x.reshape(*x.shape[:-4], x.shape[-4] * x.shape[-3], *x.shape[-2:])

    def split_heads(self, x: Any) -> Any:
        """`[..., N, t, s] -> [..., K, G, t, s]`, for the array that the function returned."""
        if self.heads is None or x.ndim < 3:
            return x
        heads = (1, 1) if x.shape[-3] == 1 else self.heads
        return x.reshape(x.shape[:-3] + heads + x.shape[-2:])

    def __repr__(self) -> str:
        return describe(self.function)
