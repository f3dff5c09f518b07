"""The sentence tile by tile: memory linear in T and S, forward and in every derivative, for any rule."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.ground.numerics import compute_dtype, matmul_precision
from jax_attention.ground.values import Plain
from jax_attention.implementations.blockwise import rows
from jax_attention.implementations.blockwise.closed import closed
from jax_attention.implementations.blockwise.leading import over_leading
from jax_attention.implementations.blockwise.measures import Weighted
from jax_attention.implementations.blockwise.plan import Plan, make_plan
from jax_attention.implementations.blockwise.sums import Fixed, Given, sums_over_tiles
from jax_attention.implementations.blockwise.used import zero_unused
from jax_attention.implementations.problem import Attended, Problem
from jax_attention.masks import Mask
from jax_attention.masks.base import PlainMask
from jax_attention.scores import PlainScore


def attend(problem: Problem, tile: tuple[int, int] | None = None) -> jax.Array:
    """`[*lead, T, E]`, in the query's dtype."""
    with matmul_precision(problem.precision):
        lead, dtype = problem.lead, problem.query.dtype
        if 0 in problem.score_shape:
            return jnp.zeros((*problem.score_shape[:-1], problem.value.shape[-1]), dtype)
        if not problem.normalize.one_pass:
            return rows.attend(problem)
        plan = make_plan(problem, tile)
        problem = zero_unused(plan, _numbered(_computed(problem)))
        run = partial(_output, plan)
        at_once = jax.default_backend() != "cpu" or _whole(problem)
        output = run(problem) if at_once else over_leading(run, problem, lead)
        return output.astype(dtype)


def weights(problem: Problem) -> jax.Array:
    """`[*lead, T, S]`: dense by its nature, block of rows by block of rows."""
    with matmul_precision(problem.precision):
        return rows.weights(problem)


def attend_with_stats(problem: Problem) -> Attended:
    """The same output, and row statistics."""
    with matmul_precision(problem.precision):
        return rows.attend_with_stats(problem)._replace(output=attend(problem))


def _output(plan: Plan, problem: Problem) -> jax.Array:
    """The output of a problem whose leading axes, if any are left, stay in every tile."""
    query, key = problem.score.project(problem.query, problem.key)
    padded = partial(plan.padded, axes=("T", "-")), partial(plan.padded, axes=("S", "-"))
    q_pos, k_pos = plan.padded(problem.query_positions, ("T",)), plan.padded(problem.key_positions, ("S",))
    mask = plan.padded_value(problem.mask)
    cover = plan.cover(mask, q_pos, k_pos)
    lead = problem.lead
    measure = Weighted(problem.normalize, bool(problem.mods) or isinstance(problem.score, PlainScore))
    given = Given(
        padded[0](query),
        padded[1](key),
        padded[1](problem.value),
        problem.score,
        plan.padded_value(problem.mods),
        measure,
    )
    alive = cover.alive if isinstance(cover.alive, jax.Array) else None
    fixed = Fixed(mask, jnp.asarray(q_pos), jnp.asarray(k_pos), problem.dropout, problem.index, alive)
    given, fixed = closed(plan, given, fixed, lead)
    sums, anchor = sums_over_tiles(plan, cover, given, fixed, problem.precision)
    output = measure.finish(sums, anchor)
    return output[..., : plan.T, :]


def _computed(problem: Problem) -> Problem:
    """Operands in the dtype of scores and sums."""
    dtype = compute_dtype(problem.query, problem.key, problem.value)
    return problem._replace(**{name: getattr(problem, name).astype(dtype) for name in ("query", "key", "value")})


def _numbered(problem: Problem) -> Problem:
    """Under dropout every leading index must know its number."""
    if problem.dropout is None:
        return problem
    count = 1
    for size in problem.lead:
        count *= size
    return problem._replace(index=jnp.arange(count, dtype=jnp.int32).reshape(problem.lead))


def _whole(problem: Problem) -> bool:
    """Whether tiles must show all leading axes: plain functions may close over arrays with heads.

    A plain mask sees nothing but positions; where all it says has no leading axes, it does not.
    """
    if any(isinstance(part, Plain) for part in (problem.score, *problem.mods)):
        return True
    if problem.mask is None or not _has_plain(problem.mask):
        return False
    pair = problem.query_positions[..., :1, None], problem.key_positions[..., None, :1]
    return any(size > 1 for size in jax.eval_shape(problem.mask, *pair).shape[:-2])


def _has_plain(mask: Any) -> bool:
    inner = [getattr(mask, name) for name in ("left", "right", "mask") if isinstance(getattr(mask, name, None), Mask)]
    return isinstance(mask, PlainMask) or any(map(_has_plain, inner))
