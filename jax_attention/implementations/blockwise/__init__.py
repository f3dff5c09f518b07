"""The sentence tile by tile: memory linear in T and S, forward and in every derivative, for any rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.ground.numerics import varying_axes, varying_like
from jax_attention.ground.values import Plain
from jax_attention.implementations.blockwise import rows
from jax_attention.implementations.blockwise.closed import Closed, closed, found_in
from jax_attention.implementations.blockwise.leading import over_leading
from jax_attention.implementations.blockwise.measures import Weighted
from jax_attention.implementations.blockwise.plan import Plan, make_plan
from jax_attention.implementations.blockwise.sums import Fixed, Given, sums_over_tiles
from jax_attention.implementations.blockwise.used import zero_unused
from jax_attention.implementations.problem import Attended, Problem


def attend(problem: Problem) -> jax.Array:
    """`[*lead, T, E]`, in the query's dtype."""
    lead, dtype = problem.lead, problem.query.dtype
    if 0 in problem.score_shape:
        return jnp.zeros((*problem.score_shape[:-1], problem.value.shape[-1]), dtype)
    if not problem.normalize.one_pass:
        return _by_rows(rows.attend, problem)
    plan = make_plan(problem, crowd=1 if _one_by_one(problem) else math.prod(lead))
    problem = closed(plan, _numbered(problem.computed()))
    one_by_one = _one_by_one(problem)
    problem = zero_unused(plan, problem)
    run = partial(_output, plan)
    output = over_leading(run, problem, lead) if one_by_one else run(problem)
    return output.astype(dtype)


def weights(problem: Problem) -> jax.Array:
    """`[*lead, T, S]`: dense by its nature, block of rows by block of rows."""
    return _by_rows(rows.weights, problem)


def attend_with_stats(problem: Problem) -> Attended:
    """The same output, and row statistics."""
    return _by_rows(rows.attend_with_stats, problem)._replace(output=attend(problem))


def _by_rows(run: Callable[[Problem], Any], problem: Problem) -> Any:
    """`run`, which takes whole rows."""
    if 0 in problem.score_shape or found_in(Plain, problem.normalize) or not _one_by_one(problem):
        return run(problem)
    return over_leading(run, _numbered(problem), problem.lead)


def _output(plan: Plan, problem: Problem) -> jax.Array:
    """The output of a problem whose leading axes, if any are left, stay in every tile."""
    query, key = problem.score.project(problem.query, problem.key)
    q_pos, k_pos = plan.padded(problem.query_positions, ("T",)), plan.padded(problem.key_positions, ("S",))
    mask, mods = plan.padded_value(problem.mask), plan.padded_value(problem.mods)
    cover = plan.cover(mask, q_pos, k_pos)
    measure = Weighted(problem.normalize, problem.forbids)
    query, key = plan.padded(query, ("T", "H")), plan.padded(key, ("S", "H"))
    value = plan.padded(problem.value, ("S", "E"))
    given = Given(query, key, value, plan.padded_value(problem.score), mods, plan.padded_value(measure))
    alive = cover.alive if isinstance(cover.alive, jax.Array) else None
    fixed = Fixed(mask, jnp.asarray(q_pos), jnp.asarray(k_pos), problem.dropout, problem.index, alive)
    given, fixed = _varying(given, fixed, problem)
    sums, anchor = sums_over_tiles(plan, cover, given, fixed, problem.precision)
    return given.measure.finish(sums, anchor)[..., : plan.T, :]


def _varying(given: Given, fixed: Fixed, problem: Problem) -> tuple[Given, Fixed]:
    """Under `shard_map`, the same over all its mesh axes: derivatives are then summed over devices once, at the end.

    Not so those of what plain functions close over, which are typed in their jaxpr. They are summed in every tile, and
    so every device must compute every tile: a sum in a branch that only some of them take would wait for ever.
    """
    is_closed = lambda x: isinstance(x, Closed)  # noqa: E731
    vary = lambda x: x if is_closed(x) else varying_like(x, problem.arrays)  # noqa: E731
    if varying_axes(problem.arrays) and found_in(Closed, given):
        fixed = fixed._replace(alive=None)
    return jax.tree.map(vary, (given, fixed), is_leaf=is_closed)


def _numbered(problem: Problem) -> Problem:
    """Under dropout every leading index must know its number."""
    if problem.dropout is None:
        return problem
    count = math.prod(problem.lead)
    return problem._replace(index=jnp.arange(count, dtype=jnp.int32).reshape(problem.lead))


def _one_by_one(problem: Problem) -> bool:
    """Whether leading indices may follow one another, which is fastest on a single CPU, and only there. Plain scores
    and mods may close over arrays with heads; of masks it is known what they return.
    """
    heads = any(size > 1 for mask in found_in(Closed, problem.mask) for size in mask.lead)
    plain = found_in((Plain, Closed), (problem.score, problem.mods)) or found_in(Plain, problem.mask)
    return jax.default_backend() == "cpu" and jax.device_count() == 1 and not heads and not plain
