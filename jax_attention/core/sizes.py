"""Questions about sizes that may be symbolic: `jax.export` traces one program for every batch size and length.

A symbolic size has no number. Comparing it raises where the answer depends on it, `min` and `range` need an answer, and
it cannot be formatted with separators. Whoever decides by a size asks here, and states what holds where nothing is
known. Equality needs no such question: a symbolic size equals itself, and no number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import InconclusiveDimensionOperation


def is_static(*sizes: Any) -> bool:
    """Whether all sizes are numbers, not symbols.

    >>> from jax import export
    >>> is_static(3, 4), is_static(3, *export.symbolic_shape("t"))
    (True, False)
    """
    return all(isinstance(size, (int, np.integer)) for size in sizes)


def is_at_most(size: Any, limit: Any) -> bool:
    """Whether a size is known to be at most the limit.

    >>> from jax import export
    >>> is_at_most(3, 4), is_at_most(*export.symbolic_shape("t"), 4)
    (True, False)
    """
    return _is_certain(lambda: size <= limit)


def exceeds(size: Any, limit: Any) -> bool:
    """Whether a size is known to be larger than the limit.

    >>> from jax import export
    >>> exceeds(5, 4), exceeds(*export.symbolic_shape("t"), 4)
    (True, False)
    """
    return _is_certain(lambda: size > limit)


def index_range(size: Any) -> np.ndarray | jax.Array:
    """int32 `[size]`, 0 … size - 1: NumPy, so that its numbers are known during tracing, unless the size is symbolic.

    >>> index_range(3)
    array([0, 1, 2], dtype=int32)
    """
    return (np if is_static(size) else jnp).arange(size, dtype=np.int32)


def size_text(size: Any) -> str:
    """A size for messages.

    >>> from jax import export
    >>> size_text(4096), size_text(*export.symbolic_shape("t"))
    ('4,096', 't')
    """
    return f"{size:,}" if is_static(size) else str(size)


def _is_certain(comparison: Callable[[], bool]) -> bool:
    try:
        return bool(comparison())
    except InconclusiveDimensionOperation:
        return False
