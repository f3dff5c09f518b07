"""Plain functions, made into values that hold what they close over.

A derivative rule may be traced when the call is long over: what it needs, it must be given. So arrays that plain
scores, mods and masks close over, traced or not, become leaves, and those of scores and mods can be differentiated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.extend

from jax_attention.ground.values import Plain
from jax_attention.implementations.blockwise.plan import Plan
from jax_attention.implementations.blockwise.sums import Fixed, Given
from jax_attention.masks import Mask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Closed(Mask):
    """A plain score, mod or mask whose arrays are leaves. Called as the part that it stands for."""

    function: Any = dataclasses.field(metadata={"static": True})
    arrays: list[Any] = dataclasses.field()

    def __call__(self, *operands: jax.Array) -> jax.Array:
        closed = jax.extend.core.ClosedJaxpr(self.function, self.arrays)
        return jax.extend.core.jaxpr_as_fun(closed)(*operands)[0]

    tile = __call__


def closed(plan: Plan, given: Given, fixed: Fixed, lead: tuple[int, ...]) -> tuple[Given, Fixed]:
    """The same, with plain parts closed over the arrays of this call."""
    t, s, dtype = plan.height, plan.width, given.query.dtype
    score = given.score
    if isinstance(score, Plain):
        shapes = [(*x.shape[:-2], size, x.shape[-1]) for x, size in ((given.query, t), (given.key, s))]
        score = _closed(score.tile, *(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
    q_pos = jax.ShapeDtypeStruct((*fixed.q_pos.shape[:-1], t, 1), fixed.q_pos.dtype)
    k_pos = jax.ShapeDtypeStruct((*fixed.k_pos.shape[:-1], 1, s), fixed.k_pos.dtype)
    tile = jax.ShapeDtypeStruct((*lead, t, s), dtype)
    mods = tuple(_closed(mod, tile, q_pos, k_pos) if isinstance(mod, Plain) else mod for mod in given.mods)
    mask = _closed_mask(fixed.mask, q_pos, k_pos)
    return given._replace(score=score, mods=mods), fixed._replace(mask=mask)


def _closed_mask(mask: Any, *positions: Any) -> Any:
    """Plain masks inside `& | ~` too."""
    if isinstance(mask, Plain):
        return _closed(mask, *positions)
    inner = {name: getattr(mask, name, None) for name in ("left", "right", "mask")}
    inner = {name: _closed_mask(x, *positions) for name, x in inner.items() if isinstance(x, Mask)}
    return dataclasses.replace(mask, **inner) if inner else mask


def _closed(function: Callable, *operands: Any) -> Closed:
    found = jax.make_jaxpr(function)(*operands)
    return Closed(found.jaxpr, found.consts)
