"""A call is traced once for its shapes and rule, and compiled once where no `jit` is around it, not anew every time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.ground.values import NamedArray, is_value, map_arrays
from jax_attention.implementations.problem import Problem


class Known:
    """What of a problem must be known when traced: its structure, blocks and positions of NumPy, names and numbers.

    Two are equal if all of it is, so that equal calls share one program.
    """

    def __init__(self, run: Callable[[Problem], Any], problem: Problem):
        leaves, self.structure = jax.tree.flatten(problem)
        self.run = run
        self.leaves = tuple(None if isinstance(x, jax.Array) else x for x in leaves)
        self._key = (run, self.structure, tuple(map(_content, self.leaves)))

    def problem(self, arrays: list[jax.Array]) -> Problem:
        """The problem again."""
        rest = iter(arrays)
        return jax.tree.unflatten(self.structure, [next(rest) if x is None else x for x in self.leaves])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Known) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def run_compiled(run: Callable[[Problem], Any], problem: Problem) -> Any:
    """`run(problem)` under `jit`, also inside of other transformations: equal layers of a model share one trace, and
    calls of a bare `jax.grad` one program. Not if a function of a user is part of the rule.

    (What such a function looks up may change from call to call, and a program kept from earlier would not notice.)
    """
    parts = {name: getattr(problem, name) for name in ("score", "mods", "mask", "normalize")}
    if _holds_function(tuple(parts.values())):
        return run(problem)
    problem = problem._replace(**{name: map_arrays(_as_argument, part) for name, part in parts.items()})
    return _run(Known(run, problem), [x for x in jax.tree.leaves(problem) if isinstance(x, jax.Array)])


@partial(jax.jit, static_argnums=0)
def _run(known: Known, arrays: list[jax.Array]) -> Any:
    return known.run(known.problem(arrays))


def _as_argument(entry: NamedArray) -> Any:
    """Another bias, or other lengths, need no other program: NumPy is known when traced only where it decides which
    tiles there are.
    """
    known = entry.layout or not isinstance(entry.array, (np.ndarray, np.generic))
    return entry.array if known else jnp.asarray(entry.array)


def _content(x: Any) -> Any:
    return (x.shape, x.dtype, x.tobytes()) if isinstance(x, (np.ndarray, np.generic)) else (type(x), x)


def _holds_function(x: Any) -> bool:
    if isinstance(x, tuple):
        return any(map(_holds_function, x))
    if is_value(x):
        return any(_holds_function(getattr(x, field.name)) for field in dataclasses.fields(x))
    return callable(x)
