"""Check of a user's parts: that each returns the shape that it should, for every T and S.

Functions are checked when they are called. A part written as a struct is traced here once, without computing anything,
for numbers of queries and keys that no array of it has. So an array `[N]` that was not spread over the tile is an error
for every N, and not only where N is not S.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import broadcasts, describe_array, fail_unless
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.struct import NamedArray, UserFunction, is_struct, map_arrays
from jax_attention.implementations.call import AttentionCall

ROWS, COLUMNS = 1009, 1013
"""T and S of the trace: primes, which no other size is likely to equal."""
CURE = (
    "An array declared by array_field() has one number for each batch element, [...]: spread it over the tile by "
    "per_tile(self.x). One declared by array_field('T') or array_field('S') comes as [..., t] or [..., s]."
)


def check_part_shapes(call: AttentionCall) -> None:
    """Trace the user's parts of a call for other lengths, and check what they return."""
    batch, shape = call.batch_shape, (*call.batch_shape, ROWS, COLUMNS)
    dtype = compute_dtype(call.query, call.key, call.value)
    scores, where = jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape, bool)
    ones = (1,) * len(batch)
    q_pos, k_pos = (jax.ShapeDtypeStruct((*ones, *size), jnp.int32) for size in ((ROWS, 1), (1, COLUMNS)))
    query, key = (
        jax.ShapeDtypeStruct((*x.shape[:-2], rows, x.shape[-1]), dtype)
        for x, rows in ((call.query, ROWS), (call.key, ROWS if call.score.key_per_query else COLUMNS))
    )
    if _is_users(call.score):
        got = _trace("score", call.score, query, key)
        fits = broadcasts(got.shape[:-2], batch) and got.shape[-2:] == shape[-2:]
        _check("score", call.score, fits, "[..., T, S]", got)
    for mod in filter(_is_users, call.mods):
        got = _trace("mods", mod, scores, q_pos, k_pos)
        _check("mods", mod, got.shape == shape, "the shape of the scores, [..., T, S]", got)
    if call.mask is not None and _is_users(call.mask):
        got = _trace("mask", call.mask, q_pos, k_pos)
        fits = broadcasts(got.shape, shape) and got.dtype == bool
        _check("mask", call.mask, fits, "booleans that broadcast to [..., T, S]", got)
    if _is_users(call.normalize):
        got = _trace("normalize", call.normalize, scores, where)
        _check("normalize", call.normalize, got.shape == shape, "weights of the shape of the scores, [..., T, S]", got)


def _is_users(part: Any) -> bool:
    """Whether a part, or one inside it, is a struct of another package than this one."""
    return any(not type(x).__module__.startswith("jax_attention.") for x in _structs(part))


def _structs(part: Any) -> Iterator[Any]:
    if is_struct(part) and not isinstance(part, UserFunction):
        yield part
        for field in dataclasses.fields(part):
            yield from _structs(getattr(part, field.name))


def _trace(name: str, part: Callable, *arguments: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What the part returns, abstractly; an error in it says for which shapes it came."""
    try:
        got = jax.eval_shape(map_arrays(_resize, part), *arguments)
    except (TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(map(describe_array, arguments))
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"{name}: expected {part!r} to take {shapes}, got {type(error).__name__}: {str(error)[:300]} {CURE}"
        ) from error
    fail_unless(hasattr(got, "shape"), f"{name}: expected {part!r} to return an array, got {got!r}.", TypeError)
    return got


def _resize(entry: NamedArray) -> Any:
    """The array with T and S of the trace, in place of its own, where it has such axes."""
    shape, array = list(np.shape(entry.array)), entry.array
    for axis, name in enumerate(entry.axes, len(shape) - len(entry.axes)):
        if name in ("T", "S") and shape[axis] != 1:
            shape[axis] = ROWS if name == "T" else COLUMNS
    if tuple(shape) == np.shape(array):
        return array
    # Zeros that take no memory: NumPy stays NumPy, as some parts look into such arrays while they are traced.
    xp = np if isinstance(array, np.ndarray) else jnp
    return xp.broadcast_to(xp.zeros((), array.dtype), tuple(shape))


def _check(name: str, part: Any, fits: bool, expected: str, got: jax.ShapeDtypeStruct) -> None:
    fail_unless(
        fits,
        f"{name}: expected {part!r} to return {expected}, got {describe_array(got)} for T = {ROWS}, S = {COLUMNS}. "
        f"{CURE}",
    )
