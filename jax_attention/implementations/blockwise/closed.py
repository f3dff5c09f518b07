"""Plain functions, made into values that hold what they close over, so that it can be differentiated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.ground.values import Plain
from jax_attention.implementations.blockwise.plan import Plan
from jax_attention.implementations.blockwise.sums import Given


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Closed:
    """A plain score or mod whose arrays are leaves. Called as the part that it stands for."""

    function: Callable = dataclasses.field(metadata={"static": True})
    arrays: list[Any] = dataclasses.field()

    def __call__(self, *operands: jax.Array) -> jax.Array:
        return self.function(*operands, *self.arrays)

    tile = __call__


def closed(plan: Plan, given: Given, lead: tuple[int, ...]) -> Given:
    """The same, with plain scores and mods closed over the arrays of this call."""
    t, s, dtype = plan.height, plan.width, given.query.dtype
    score = given.score
    if isinstance(score, Plain):
        shapes = [(*x.shape[:-2], size, x.shape[-1]) for x, size in ((given.query, t), (given.key, s))]
        score = _closed(score.tile, *(jnp.zeros(shape, dtype) for shape in shapes))
    rank = len(lead)
    tile = jnp.zeros((*lead, t, s), dtype), jnp.zeros((1,) * rank + (t, 1), int), jnp.zeros((1,) * rank + (1, s), int)
    mods = tuple(_closed(mod, *tile) if isinstance(mod, Plain) else mod for mod in given.mods)
    return given._replace(score=score, mods=mods)


def _closed(function: Callable, *operands: jax.Array) -> Closed:
    found, arrays = jax.closure_convert(function, *operands)
    return Closed(found, arrays)
