"""An adapter to NVIDIA's fused kernel, which jax.nn reaches; only by name, only what the kernel gets right.

Its derivative is one rule for reverse mode, so there is no forward mode and no second derivative. `implementation=None`
promises both, and therefore never takes it.
"""

from __future__ import annotations

from typing import NoReturn

import jax
import jax.numpy as jnp

from jax_attention.ground.numerics import zero_rows
from jax_attention.implementations.cudnn.eligible import Band, band_of, why_not
from jax_attention.implementations.cudnn.fused import Setting, attention
from jax_attention.implementations.cudnn.layout import layout_of
from jax_attention.implementations.problem import Problem
from jax_attention.scores import Dot

__all__ = ["ON_REQUEST", "attend", "attend_with_stats", "weights", "why_not"]

ON_REQUEST = 'it could, and is taken by name only (implementation="cudnn"): it has no jvp and no second derivative'
"""What `explain` says where the problem is eligible."""


def attend(problem: Problem) -> jax.Array:
    """`[*lead, T, E]`, in the query's dtype."""
    if 0 in problem.score_shape:
        return jnp.zeros((*problem.score_shape[:-1], problem.value.shape[-1]), problem.query.dtype)
    band = band_of(problem.mask)
    rows, columns = _used(problem, band)
    query, key, value = (
        zero_rows(x, used)
        for x, used in ((problem.query, rows), (problem.key, columns), (problem.value, columns))
    )
    lengths = None
    if band.key_lengths is not None:
        lengths = jnp.clip(jnp.asarray(band.key_lengths, jnp.int32), 1, value.shape[-2])
    layout = layout_of(problem, lengths)
    output = attention(_setting(problem, band))(
        layout.queries(query), layout.keys(key), layout.keys(value), layout.per_batch(lengths)
    )
    return zero_rows(layout.restored(output), rows)


def weights(problem: Problem) -> NoReturn:
    """Refused."""
    raise ValueError(
        "implementation: the cuDNN kernel never forms the weights. Leave implementation out, or name 'reference'."
    )


def attend_with_stats(problem: Problem) -> NoReturn:
    """Refused."""
    raise ValueError(
        "implementation: the cuDNN kernel has no statistics that could be differentiated, and its logsumexp is rounded "
        "to the query's dtype. Leave implementation out, or name 'blockwise'."
    )


def _setting(problem: Problem, band: Band) -> Setting:
    score, (rows, size) = problem.score, problem.query.shape[-2:]
    scale = 1.0 if isinstance(score, Dot) else size**-0.5 if score.scale is None else float(score.scale)
    window = band.window if band.window is not None and band.window < rows else None
    return Setting(scale, band.causal, window)


def _used(problem: Problem, band: Band) -> tuple[jax.Array, jax.Array]:
    """Which rows `[..., T]` and columns `[..., S]` have an allowed pair.

    The kernel never sees a row without one: a length of 0 is raised to 1, the one key is 0, and the row is set to 0
    when it comes back. What stands in unused rows is replaced before, and gets gradient 0.
    """
    pairs = problem.score_shape[-2:]
    rows, columns = (jnp.ones((1,) * len(problem.lead) + (size,), bool) for size in pairs)
    if band.query_lengths is not None:
        length = jnp.asarray(band.query_lengths)[..., None]
        rows = rows & (jnp.arange(pairs[0]) < length)
        columns = columns & ((jnp.arange(pairs[1]) < length) if band.causal else length > 0)
    if band.key_lengths is not None:
        length = jnp.asarray(band.key_lengths)[..., None]
        rows, columns = rows & (length > 0), columns & (jnp.arange(pairs[1]) < length)
    return rows, columns
