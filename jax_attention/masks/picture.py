"""The picture of a mask in a notebook: a grid of its first positions, or of every n-th one, as SVG."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_attention.core.html import show_grid
from jax_attention.core.struct import NamedArray, UserFunction, is_struct, map_arrays, named_arrays

LEAST, MOST = 16, 48
"""Positions of a picture: as many as show a window twice, at least and at most so many."""
LARGEST_WINDOW = 2**28
"""Larger numbers stand for no limit, such as the position of empty slots in a cache."""


def evaluate_first(mask: Callable, queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of these keys each of these queries may attend to, bool `[T, S]`, in the first batch element."""
    allowed = np.asarray(mask(jnp.asarray(queries, jnp.int32)[:, None], jnp.asarray(keys, jnp.int32)[None, :]))
    shape = queries.size, keys.size
    return np.broadcast_to(allowed, (*allowed.shape[:-2], *shape)).reshape(-1, *shape)[0]


def draw_mask(mask: Any) -> str | None:
    """HTML with the mask as a grid: queries down, keys across, filled where a query may attend to a key.

    Arrays with a row for each query or key give the lengths. Without any, they are twice the largest number of the
    mask, so that windows and chunks have room. Of long sequences every n-th position is drawn.
    """
    sizes = {}
    for entry in named_arrays(mask):
        shape = np.shape(entry.array)
        sizes |= {axis: size for axis, size in zip(entry.axes, shape[len(shape) - len(entry.axes) :], strict=True)}
    length = max(LEAST, 2 * _largest_number(mask))
    given = [size for axis in "TS" if (size := sizes.get(axis, 1)) > 1]
    rows, columns = (sizes.get(axis, 1) if sizes.get(axis, 1) > 1 else (given or [length])[0] for axis in "TS")
    step = -(-max(rows, columns) // MOST)
    try:
        cells = evaluate_first(_take_every(step, mask), np.arange(0, rows, step), np.arange(0, columns, step))
    except Exception:  # A user's function may know other lengths only, and numbers may be traced. Its text is shown.
        return None
    sample = f", one position in {step}" if step > 1 else ""
    return show_grid(cells, repr(mask), f"{rows} queries (down) x {columns} keys{sample}; filled: may attend")


def _take_every(step: int, mask: Any) -> Any:
    """The mask of the first batch element with every n-th entry along queries and keys."""

    def take(entry: NamedArray) -> Any:
        if isinstance(entry.array, int):
            return entry.array
        array = np.asarray(entry.array)
        array = array[(0,) * (array.ndim - len(entry.axes))]
        return array[tuple(slice(None, None, step if axis in ("T", "S") else None) for axis in entry.axes)]

    return map_arrays(take, mask)


def _largest_number(x: Any) -> int:
    """The largest number of positions inside a mask: a window, a chunk, an offset."""
    if isinstance(x, int):
        return abs(x) if abs(x) < LARGEST_WINDOW else 0
    if isinstance(x, UserFunction) or not is_struct(x):
        return 0
    return max((_largest_number(getattr(x, field.name)) for field in dataclasses.fields(x)), default=0)
