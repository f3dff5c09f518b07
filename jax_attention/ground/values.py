"""What a value is: a frozen dataclass whose arrays are pytree leaves with named axes and whose structure is static.

Scores, mods, masks and normalizers are values. Each array field says which axes it has *after* the leading ones,
for example `leaf("H", "A")` for a weight matrix or `leaf("T")` for one number per query row. Everything before the
named axes is leading: it broadcasts against the leading axes of the scores (batch, heads). That one declaration lets
the dispatcher check shapes, lets grouped-query attention regroup heads, and lets a tiled implementation slice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.ground.trees import register

V = TypeVar("V")
_AXES = "axes"
_CHILD = "child"
_PER_SEQUENCE = "per_sequence"
_LAYOUT = "layout"


class NamedArray(NamedTuple):
    """One array inside a value: where it is, what it is, and how its axes are to be read."""

    name: str
    array: Any
    axes: tuple[str, ...]
    per_sequence: bool
    layout: bool


def leaf(*axes: str, default: Any = dataclasses.MISSING, per_sequence: bool = False, layout: bool = False) -> Any:
    """A field that holds an array with any leading axes followed by the named `axes`.

    `per_sequence` marks data about one sequence (lengths, segment ids). Such an array must have either no leading axis
    or all of them: a bare `[B]` would otherwise be read as one entry per head, and with B = N nothing would notice.
    `layout` marks data that decides which tiles there are: a NumPy array there is part of the program, and another one
    another program; elsewhere it is an argument of the program.
    """
    return dataclasses.field(default=default, metadata={_AXES: axes, _PER_SEQUENCE: per_sequence, _LAYOUT: layout})


def child(default: Any = dataclasses.MISSING) -> Any:
    """A field that holds another value, a tuple of values, or None."""
    return dataclasses.field(default=default, metadata={_CHILD: True})


def value(cls: type[V]) -> type[V]:
    """Class decorator: a frozen dataclass registered as a pytree; `leaf` and `child` fields are data, the rest static.

    Values compare by content, so two `causal()` objects are equal and a fresh one never recompiles.
    """
    own = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    own.__eq__, own.__hash__ = _equal, _hash
    if own.__repr__ is object.__repr__:
        own.__repr__ = _repr
    fields = dataclasses.fields(own)
    data = [f.name for f in fields if f.metadata]
    return register(own, data, [f.name for f in fields if not f.metadata])


def is_value(x: Any) -> bool:
    """Whether `x` is an instance of a class made by `value`."""
    return dataclasses.is_dataclass(x) and not isinstance(x, type)


def named_arrays(x: Any, prefix: str = "") -> list[NamedArray]:
    """All arrays inside a value, nested values included."""
    found: list[NamedArray] = []

    def note(entry: NamedArray) -> Any:
        found.append(entry)
        return entry.array

    map_arrays(note, x, prefix)
    return found


def align(x: Any, rank: int, groups: tuple[int, int] | None = None) -> Any:
    """Give every array inside `x` exactly `rank` leading axes, filled up in front by axes of size 1.

    `groups = (K, G)` first cuts the last leading axis, the N = K G query heads, in two. Plain callables keep seeing N
    heads in one axis: their wrapper merges and parts around the call.

    Half-precision arrays become float32, so that gradients, which sum over many scores, are summed in float32. Arrays
    with an entry for every score stay as they are: they are promoted entry by entry, and a copy would be quadratic.
    """

    def fit(entry: NamedArray) -> Any:
        if isinstance(entry.array, (int, float)):
            return entry.array
        array, shape = entry.array, np.shape(entry.array)
        cut = len(shape) - len(entry.axes)
        own = entry.axes == ("T", "S") and cut == rank and 1 not in shape
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4 and not own:
            array = array.astype(jnp.float32)
        lead, tail = shape[:cut], shape[cut:]
        if groups and lead:
            lead = (*lead[:-1], *((1, 1) if lead[-1] == 1 else groups))
        return array.reshape((1,) * (rank - len(lead)) + lead + tail)

    def regroup(wrapper: Plain) -> Plain:
        return dataclasses.replace(wrapper, heads=groups)

    return map_arrays(fit, x, plain=regroup)


def map_arrays(fn: Callable[[NamedArray], Any], x: Any, prefix: str = "", plain: Callable | None = None) -> Any:
    """The same value with `fn` of every array inside, and `plain` of every wrapper around a plain callable."""
    if isinstance(x, tuple):
        return tuple(map_arrays(fn, item, f"{prefix}[{i}]", plain) for i, item in enumerate(x))
    if not is_value(x):
        return x
    if isinstance(x, Plain):
        return plain(x) if plain else x
    changes = {}
    for field in dataclasses.fields(x):
        held = getattr(x, field.name)
        name = f"{prefix}.{field.name}" if prefix else field.name
        if held is None:
            continue
        if _AXES in field.metadata:
            read = (field.metadata[key] for key in (_AXES, _PER_SEQUENCE, _LAYOUT))
            changes[field.name] = fn(NamedArray(name, held, *read))
        elif _CHILD in field.metadata:
            changes[field.name] = map_arrays(fn, held, name, plain)
    return dataclasses.replace(x, **changes)


@dataclasses.dataclass(frozen=True)
class Plain:
    """Base of the wrappers around plain Python callables; the function is static, what it closes over is traced."""

    function: Callable
    heads: tuple[int, int] | None = None

    def merged(self, x: Any) -> Any:
        """Show the callable one axis of N heads where the evaluation has `(kv_heads, groups)`."""
        if self.heads is None or x.ndim < 4:
            return x
        return x.reshape(*x.shape[:-4], x.shape[-4] * x.shape[-3], *x.shape[-2:])

    def parted(self, x: Any) -> Any:
        """Undo `merged` on what the callable returned."""
        if self.heads is None or x.ndim < 3:
            return x
        heads = (1, 1) if x.shape[-3] == 1 else self.heads
        return x.reshape(x.shape[:-3] + heads + x.shape[-2:])

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", None) or repr(self.function)


def plain_value(cls: type[V]) -> type[V]:
    """Class decorator for subclasses of `Plain`: no array leaves, all fields static."""
    cls = dataclasses.dataclass(frozen=True, repr=False)(cls)
    return register(cls, [], ["function", "heads"])


def show(x: Any) -> str:
    """A short text for one field: scalars as they are, arrays by dtype and shape."""
    if isinstance(x, (bool, int, float, str)) or x is None or is_value(x) or callable(x):
        return repr(x)
    if isinstance(x, np.ndarray) and x.ndim == 0:
        return repr(x.item())
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        if x.shape == () and isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer):
            return repr(x.item())
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return repr(x)


def _equal(self: Any, other: Any) -> bool:
    if type(self) is not type(other):
        return NotImplemented
    (mine, structure), (theirs, other_structure) = jax.tree.flatten(self), jax.tree.flatten(other)
    return structure == other_structure and all(map(_same_array, mine, theirs))


def _same_array(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    return getattr(a, "dtype", type(a)) == getattr(b, "dtype", type(b)) and np.array_equal(a, b)


def _hash(self: Any) -> int:
    return hash((type(self), jax.tree.structure(self)))


def _repr(self: Any) -> str:
    name = type(self).__name__
    snake = "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))
    shown = []
    for field in dataclasses.fields(self):
        held = getattr(self, field.name)
        if not (type(held) is type(field.default) and held == field.default):
            shown.append(f"{field.name}={show(held)}")
    return f"{snake}({', '.join(shown)})"
