"""Rows that no allowed pair needs become 0 before anything is computed, so that NaN in padding goes nowhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.ground.numerics import varying_like
from jax_attention.implementations.blockwise.plan import Plan
from jax_attention.implementations.blockwise.sums import Order, inside, unless_empty
from jax_attention.implementations.problem import Problem


def zero_unused(plan: Plan, problem: Problem) -> Problem:
    """The problem with zeros in the rows of query, key and value that the mask excludes altogether."""
    if problem.mask is None:
        return problem
    return problem.zero_unused(*_used(plan, problem))


def _used(plan: Plan, problem: Problem) -> tuple[jax.Array, jax.Array]:
    """Which rows `[..., T]` and columns `[..., S]` have an allowed pair."""
    mask = plan.padded_value(problem.mask)
    q_pos, k_pos = plan.padded(problem.query_positions, ("T",)), plan.padded(problem.key_positions, ("S",))
    cover = plan.cover(mask, q_pos, k_pos)
    alive = cover.alive if isinstance(cover.alive, jax.Array) else None
    q_pos, k_pos = varying_like((jnp.asarray(q_pos), jnp.asarray(k_pos)), problem.arrays)

    def allowed(i: jax.Array, j: jax.Array) -> jax.Array:
        q, k = plan.cut(q_pos, ("T",), i, j)[..., :, None], plan.cut(k_pos, ("S",), i, j)[..., None, :]
        where = inside(plan, j) & plan.cut_value(mask, i, j)(q, k)
        return jnp.broadcast_to(where, (*where.shape[:-2], plan.height, plan.width))

    def step(carry: tuple[jax.Array, jax.Array], i: jax.Array, j: jax.Array, masked: bool) -> tuple:
        if masked:
            none = lambda: jnp.zeros((*lead, plan.height, plan.width), bool)  # noqa: E731
            own = None if alive is None else alive[i, j]
            where = unless_empty(own, masked, lambda: jnp.broadcast_to(allowed(i, j), none().shape), none)
        else:
            where = jnp.ones((plan.height, plan.width), bool)
        found = where.any(-1), where.any(-2)
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(
                x, jax.lax.dynamic_slice_in_dim(x, n * size, size, axis=-1) | own, n * size, -1
            )
            for x, own, n, size in zip(carry, found, (i, j), (plan.height, plan.width), strict=True)
        )

    zero = jnp.zeros((), jnp.int32)
    lead = jax.eval_shape(allowed, zero, zero).shape[:-2]
    lead = (1,) * (len(problem.lead) - len(lead)) + lead
    start = jnp.zeros((*lead, plan.rows * plan.height), bool), jnp.zeros((*lead, plan.columns * plan.width), bool)
    rows, columns = Order(plan, cover).over(step, varying_like(start, jax.eval_shape(allowed, zero, zero)))
    return rows[..., : plan.T], columns[..., : plan.S]
