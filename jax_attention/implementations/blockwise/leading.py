"""One leading index after the other: what broadcasts there is shared, not repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.ground.values import map_arrays
from jax_attention.implementations.problem import Problem

ARRAYS = ("query", "key", "value", "query_positions", "key_positions", "index")
PARTS = ("score", "mods", "mask", "normalize")


def over_leading(run: Callable[[Problem], Any], problem: Problem, lead: tuple[int, ...]) -> Any:
    """`run` on the problem at each leading index; results, arrays or pytrees of them, get the leading axes back.

    Every array of a problem has all leading axes, of size 1 where it is shared.
    """
    if not lead:
        return run(problem)
    arrays, rebuilt = _arrays(problem)
    if lead[0] == 1:
        inner = over_leading(run, rebuilt([x[0] for x in arrays]), lead[1:])
        return jax.tree.map(lambda x: x[None], inner)

    def one(own: list[Any]) -> Any:
        entries = iter(own)
        return over_leading(run, rebuilt([next(entries) if x.shape[0] > 1 else x[0] for x in arrays]), lead[1:])

    return jax.lax.map(one, [jnp.asarray(x) for x in arrays if x.shape[0] > 1])


def _arrays(problem: Problem) -> tuple[list[Any], Callable[[list[Any]], Problem]]:
    """All arrays with leading axes, and how to put others in their place."""
    found: list[Any] = []

    def rebuilt(replacements: list[Any] | None) -> Problem:
        left = None if replacements is None else iter(replacements)

        def visit(x: Any) -> Any:
            if left is not None:
                return next(left)
            found.append(x)
            return x

        own = {name: visit(x) for name in ARRAYS if (x := getattr(problem, name)) is not None}
        numbers = lambda entry: entry.array if isinstance(entry.array, (int, float)) else visit(entry.array)  # noqa: E731
        return problem._replace(**own, **{name: map_arrays(numbers, getattr(problem, name)) for name in PARTS})

    rebuilt(None)
    return found, rebuilt
