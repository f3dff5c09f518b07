"""Parts of a rule as containers of arrays: list, check and reshape the arrays inside any part.

A plain function in the place of a part is wrapped in a `UserFunction`, which every folder of parts subclasses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.struct import AXES, LAYOUT, PART, PER_SEQUENCE, is_struct


class NamedArray(NamedTuple):
    """One array of a part: its path for messages, the array, and the options of its `array_field`."""

    name: str
    array: Any
    axes: tuple[str, ...]
    per_sequence: bool
    layout: bool


class FactoryRepr:
    """Base of structs that print as the call of their factory: `sliding_window(left=2)`."""

    def __repr__(self) -> str:
        name = type(self).__name__
        snake = "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))
        shown = []
        for field in dataclasses.fields(self):
            x = getattr(self, field.name)
            if not (type(x) is type(field.default) and x == field.default):
                shown.append(f"{field.name}={describe(x)}")
        return f"{snake}({', '.join(shown)})"


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


def align(x: Any, rank: int, groups: tuple[int, int] | None = None) -> Any:
    """Give every array inside `x` exactly `rank` batch dimensions by inserting dimensions of size 1 in front.

    `groups = (K, G)` first splits the last batch dimension, the N = K G query heads, in two. User functions keep seeing
    N heads in one axis: their wrapper merges the heads before the call and splits them after it.

    Half-precision arrays become float32, because their gradients are sums over many scores. An array with an entry for
    every score stays as it is: it is promoted tile by tile, and a copy would be quadratic.
    """

    def expand(entry: NamedArray) -> Any:
        if isinstance(entry.array, (int, float)):
            return entry.array
        array, shape = entry.array, np.shape(entry.array)
        batch_rank = len(shape) - len(entry.axes)
        entry_per_score = entry.axes == ("T", "S") and batch_rank == rank and 1 not in shape
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4 and not entry_per_score:
            array = array.astype(jnp.float32)
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
        if AXES in field.metadata:
            options = (field.metadata[key] for key in (AXES, PER_SEQUENCE, LAYOUT))
            changes[field.name] = fn(NamedArray(name, content, *options))
        elif PART in field.metadata:
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
        return getattr(self.function, "__name__", None) or repr(self.function)


def describe(x: Any) -> str:
    """A short text for one field: scalars as they are, arrays by dtype and shape."""
    if isinstance(x, (bool, int, float, str)) or x is None or is_struct(x) or callable(x):
        return repr(x)
    if isinstance(x, np.ndarray) and x.ndim == 0:
        return repr(x.item())
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        if x.shape == () and isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer):
            return repr(x.item())
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return repr(x)
