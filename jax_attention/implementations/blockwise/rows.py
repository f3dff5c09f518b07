"""Whole rows at a time: for normalizers that need them, for weights, and for statistics.

    for each block of rows:  the dense sentence over [rows, S], recomputed in the backward pass

Memory is that of one block; derivatives of every order are those of the dense sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.ground.values import map_arrays
from jax_attention.implementations import sentence
from jax_attention.implementations.blockwise.plan import Blockwise
from jax_attention.implementations.problem import Attended, Problem

SCORES_AT_ONCE = 2**21
"""How many scores a block of rows may hold (8 MiB in float32)."""


def attend(problem: Problem) -> jax.Array:
    """`[*lead, T, E]`."""
    return _by_rows(sentence.attend, problem, -2)


def weights(problem: Problem) -> jax.Array:
    """`[*lead, T, S]`."""
    return _by_rows(sentence.weights, problem, -2)


def attend_with_stats(problem: Problem) -> Attended:
    """Output and statistics."""
    return _by_rows(sentence.attend_with_stats, problem, Attended(-2, -1, -1, -1))


def _by_rows(run: Callable[[Problem], Any], problem: Problem, axes: Any) -> Any:
    """`run` on blocks of queries; `axes` says which axis of each result counts them."""
    *lead, rows, columns = problem.score_shape
    count = columns
    for size in lead:
        count *= size
    height = max(1, min(rows, SCORES_AT_ONCE // max(count * problem.score.per_pair, 1)))
    if isinstance(problem.implementation, Blockwise):
        height = min(rows, problem.implementation.tile[0])
    if height >= rows:
        return run(problem)
    problem = problem._replace(precision=None, implementation=None)  # no arrays; both have done their work
    blocks = -(-rows // height)
    height = -(-rows // blocks)
    padded = _over_queries(problem, lambda x, axis: _filled(x, axis, blocks * height))

    @jax.checkpoint
    def block(problem: Problem, i: jax.Array) -> Any:
        return run(_over_queries(problem, lambda x, axis: jax.lax.dynamic_slice_in_dim(x, i * height, height, axis)))

    parts = jax.lax.map(lambda i: block(padded, i), jnp.arange(blocks))

    def joined(x: jax.Array, axis: int) -> jax.Array:
        x = jnp.moveaxis(x, 0, axis - 1)
        shape = (*x.shape[: axis - 1], blocks * height, *(x.shape[axis + 1 :] if axis < -1 else ()))
        return jax.lax.slice_in_dim(x.reshape(shape), 0, rows, axis=axis)

    return jax.tree.map(joined, parts, axes)


def _over_queries(problem: Problem, change: Callable[[Any, int], Any]) -> Problem:
    """`change(array, axis)` of everything that has an entry per query."""

    def fit(entry: Any) -> Any:
        axis = entry.axes.index("T") - len(entry.axes) if "T" in entry.axes else None
        return entry.array if axis is None or entry.array.shape[axis] == 1 else change(entry.array, axis)

    parts = {name: map_arrays(fit, getattr(problem, name)) for name in ("score", "mods", "mask", "normalize")}
    key = change(problem.key, -2) if problem.score.paired else problem.key
    positions = change(problem.query_positions, -1)
    return problem._replace(query=change(problem.query, -2), key=key, query_positions=positions, **parts)


def _filled(x: Any, axis: int, size: int) -> jax.Array:
    missing = [(0, 0)] * x.ndim
    missing[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, missing, mode="edge")
