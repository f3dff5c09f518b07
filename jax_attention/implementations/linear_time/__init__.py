"""O(T) time and memory where the rule allows: sums over keys that no query has looked at.

    products:   sum_s (q_t . k_s) v_s = q_t . (sum_s k_s v_s^T)                          a sum of F x E numbers
    separable:  sum_s exp(a_t + c_s) v_s = exp(a_t) sum_s exp(c_s) v_s                   a sum of E numbers

Under a causal mask the sums run along the keys, chunk by chunk. There are no weights, so neither `weights` nor
statistics; which rules qualify is in `eligible.py`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.implementations.linear_time import products, separable
from jax_attention.implementations.linear_time.eligible import why_not
from jax_attention.implementations.linear_time.products import State
from jax_attention.implementations.linear_time.seen import seen_by
from jax_attention.implementations.problem import Problem
from jax_attention.normalizers import Softmax

__all__ = ["State", "attend", "attend_from", "empty_state", "why_not"]


def attend(problem: Problem, chunk: int | None = None) -> jax.Array:
    """`[*lead, T, E]`, in the query's dtype."""
    return attend_from(problem, None, chunk)[0]


def attend_from(problem: Problem, state: State | None, chunk: int | None = None) -> tuple[jax.Array, State | None]:
    """The output, and the sums over all keys; `state` holds those over earlier keys, which every query sees."""
    shape = (*problem.score_shape[:-1], problem.value.shape[-1])
    if 0 in problem.score_shape:
        return jnp.zeros(shape, problem.query.dtype), state
    seen = seen_by(problem)
    given = problem.computed()
    if problem.mask is not None:
        given = given.zero_unused(seen.row_used(), seen.column_used())
    if isinstance(problem.normalize, Softmax):
        output = separable.attend(given, seen, chunk)
    else:
        output, state = products.attend(given, seen, state, chunk)
    if problem.mask is not None:
        output = jnp.where(seen.row_used()[..., None], output, 0)
    return jnp.broadcast_to(output, shape).astype(problem.query.dtype), state


def empty_state(problem: Problem) -> State:
    """The state before any key, of a rule whose scores are products."""
    problem = problem.computed()
    return products.nothing(*jax.eval_shape(lambda: (products.features(problem)[1], products.with_one(problem.value))))
