"""Cache compiled calls: one trace and one compilation per (shapes, rule), also outside of `jit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.parts import NamedArray, map_arrays
from jax_attention.core.struct import is_struct
from jax_attention.implementations.call import AttentionCall


class StaticCall:
    """The static part of a call (the jit cache key): its structure, and the NumPy arrays and numbers inside.

    Two are equal if all of it is, so that equal calls share one program.
    """

    def __init__(self, run: Callable[[AttentionCall], Any], call: AttentionCall):
        leaves, self.structure = jax.tree.flatten(call)
        self.run = run
        self.leaves = tuple(None if isinstance(x, jax.Array) else x for x in leaves)
        self._key = (run, self.structure, tuple(map(_hashable, self.leaves)))

    def with_arrays(self, arrays: list[jax.Array]) -> AttentionCall:
        """The call with its JAX arrays put back."""
        rest = iter(arrays)
        return jax.tree.unflatten(self.structure, [next(rest) if x is None else x for x in self.leaves])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticCall) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def cached_jit(run: Callable[[AttentionCall], Any], call: AttentionCall) -> Any:
    """`run(call)` under `jit`, also inside other transformations.

    Equal layers of a model share one trace, and calls of a bare `jax.grad` one program. A call with a user's function
    is not cached: what that function looks up may change from call to call, and an old program would not notice.
    """
    if _holds_function(call.rule):
        return run(call)
    call = map_arrays(_as_argument, call)
    return _run(StaticCall(run, call), [x for x in jax.tree.leaves(call) if isinstance(x, jax.Array)])


@partial(jax.jit, static_argnums=0)
def _run(static: StaticCall, arrays: list[jax.Array]) -> Any:
    return static.run(static.with_arrays(arrays))


def _as_argument(entry: NamedArray) -> Any:
    """NumPy arrays become arguments of the program, so that another bias or other lengths need no other program.

    Except where they decide which tiles are computed.
    """
    static = entry.layout or not isinstance(entry.array, (np.ndarray, np.generic))
    return entry.array if static else jnp.asarray(entry.array)


def _hashable(x: Any) -> Any:
    return (x.shape, x.dtype, x.tobytes()) if isinstance(x, (np.ndarray, np.generic)) else (type(x), x)


def _holds_function(x: Any) -> bool:
    if isinstance(x, tuple):
        return any(map(_holds_function, x))
    if is_struct(x):
        return any(_holds_function(getattr(x, field.name)) for field in dataclasses.fields(x))
    return callable(x)
