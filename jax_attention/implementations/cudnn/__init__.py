"""An adapter to NVIDIA's fused kernel, which jax.nn reaches; only by name, only what the kernel gets right.

Its derivative is one rule for reverse mode, so there is no forward mode and no second derivative. `implementation=None`
promises both, and therefore never takes it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jax_attention.ground.numerics import zero_rows
from jax_attention.implementations.cudnn.eligible import Band, band_of, why_not
from jax_attention.implementations.cudnn.fused import Setting, attention
from jax_attention.implementations.cudnn.layout import layout_of
from jax_attention.implementations.problem import Problem
from jax_attention.scores import Dot

__all__ = ["ON_REQUEST", "attend", "why_not"]

ON_REQUEST = 'it could, and is taken by name only (implementation="cudnn"): it has no jvp and no second derivative'
"""What `explain` says where the problem is eligible."""


def attend(problem: Problem) -> jax.Array:
    """`[*lead, T, E]`, in the query's dtype."""
    if 0 in problem.score_shape:
        return jnp.zeros((*problem.score_shape[:-1], problem.value.shape[-1]), problem.query.dtype)
    band = band_of(problem.mask)
    if band.key_lengths is None and band.query_lengths is None:
        return _fused(problem, band)
    rows, columns = _used(problem, band)
    query = zero_rows(problem.query, rows)
    key, value = (zero_rows(x, columns) for x in (problem.key, problem.value))
    return zero_rows(_fused(problem._replace(query=query, key=key, value=value), band), rows)


def _fused(problem: Problem, band: Band) -> jax.Array:
    """What the kernel returns, `[*lead, T, E]`."""
    lengths = band.key_lengths
    if lengths is not None:
        lengths = jnp.clip(jnp.asarray(lengths, jnp.int32), 1, problem.key.shape[-2])
    layout = layout_of(problem, lengths)
    run = attention(_setting(problem, band))
    query, key, value = layout.queries(problem.query), layout.keys(problem.key), layout.keys(problem.value)
    return layout.restored(run(query, key, value, layout.per_batch(lengths)))


def _setting(problem: Problem, band: Band) -> Setting:
    score, (rows, size) = problem.score, problem.query.shape[-2:]
    scale = 1.0 if isinstance(score, Dot) else size**-0.5 if score.scale is None else float(score.scale)
    window = band.window if band.window is not None and band.window < rows else None
    return Setting(scale, band.causal, window)


def _used(problem: Problem, band: Band) -> tuple[jax.Array, jax.Array]:
    """Which rows `[..., T]` and columns `[..., S]` have an allowed pair under lengths.

    The kernel never sees a row without one: a length of 0 is raised to 1, and the row is set to 0 when it comes back.
    What stands in unused rows is replaced before, so that NaN there goes nowhere, and its gradient is 0.
    """
    rows, columns = (jnp.arange(size).reshape((1,) * len(problem.lead) + (size,)) for size in problem.score_shape[-2:])
    used_rows, used_columns = rows >= 0, columns >= 0
    if band.query_lengths is not None:
        length = _per_row(band.query_lengths)
        used_rows, used_columns = rows < length, (columns if band.causal else 0) < length
    if band.key_lengths is not None:
        length = _per_row(band.key_lengths)
        used_rows, used_columns = used_rows & (length > 0), used_columns & (columns < length)
    return used_rows, used_columns


def _per_row(length: jax.Array | int) -> jax.Array | int:
    return length if isinstance(length, int) else jnp.asarray(length)[..., None]
