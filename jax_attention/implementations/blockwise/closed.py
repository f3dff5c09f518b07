"""Plain functions, made into values that hold what they close over.

A derivative rule may be traced when the call is long over: what it needs, it must be given. So arrays that plain
scores, mods and masks close over, traced or not, become leaves, and those of scores and mods can be differentiated.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from jax_attention.ground.numerics import varying_like
from jax_attention.ground.trees import pytree
from jax_attention.ground.values import Plain, named_arrays
from jax_attention.implementations.blockwise.plan import Plan
from jax_attention.implementations.problem import Problem
from jax_attention.masks import Mask
from jax_attention.scores import Score


@pytree
@dataclasses.dataclass(frozen=True)
class Closed(Score, Mask):
    """A plain score, mod or mask whose arrays are leaves. Called as the part that it stands for."""

    forbids = True
    function: Any = dataclasses.field(metadata={"static": True})
    arrays: list[Any] = dataclasses.field()

    def __call__(self, *operands: jax.Array) -> jax.Array:
        run = jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(self.function, self.arrays))
        shapes = [x.aval.shape for x in self.function.invars]
        return run(*(x.reshape(shape) for x, shape in zip(operands, shapes, strict=True)))[0]

    tile = __call__

    @property
    def lead(self) -> tuple[int, ...]:
        """The leading axes of what it is given and returns."""
        shapes = [x.aval.shape[:-2] for x in (*self.function.invars, *self.function.outvars)]
        return jnp.broadcast_shapes(*shapes)


def closed(plan: Plan, problem: Problem) -> Problem:
    """The same problem, with plain parts closed over the arrays of this call."""
    t, s, lead, dtype = plan.height, plan.width, problem.lead, problem.query.dtype
    like = lambda *shape, dtype=dtype: varying_like(jnp.zeros(shape, dtype), problem.arrays)  # noqa: E731
    block = lambda x, size: like(*x.shape[:-2], size, x.shape[-1])  # noqa: E731
    q_pos = like(*problem.query_positions.shape[:-1], t, 1, dtype=problem.query_positions.dtype)
    k_pos = like(*problem.key_positions.shape[:-1], 1, s, dtype=problem.key_positions.dtype)
    tile = like(*lead, t, s)

    def mask(plain: Plain) -> Closed:
        def allowed(*positions: jax.Array) -> jax.Array:
            found = plain(*positions)
            if jnp.broadcast_shapes(found.shape, tile.shape) != tile.shape:
                raise ValueError(f"{found.shape} does not broadcast to {tile.shape}.")
            return found

        return _closed("mask", plain, allowed, q_pos, k_pos)

    def score(plain: Plain) -> Closed:
        return _closed("score", plain, plain.tile, block(problem.query, t), block(problem.key, s))

    def modified(done: tuple[Any, ...], mod: Any) -> tuple[Any, ...]:
        dtypes = [x.array.dtype for x in named_arrays((problem.score, *done)) if hasattr(x.array, "dtype")]
        dtypes += [x.function.outvars[0].aval.dtype for x in found_in(Closed, done)]
        scores = tile.astype(jnp.result_type(tile, *(x for x in dtypes if jnp.issubdtype(x, jnp.floating))))
        return *done, _map_plain(lambda plain: _closed("mods", plain, plain, scores, q_pos, k_pos), mod)

    mods: tuple[Any, ...] = functools.reduce(modified, problem.mods, ())
    return problem._replace(score=_map_plain(score, problem.score), mods=mods, mask=_map_plain(mask, problem.mask))


def _map_plain(fn: Callable[[Plain], Closed], parts: Any) -> Any:
    """`parts` with `fn` of the plain functions inside."""
    is_plain = lambda x: isinstance(x, Plain)  # noqa: E731
    return jax.tree.map(lambda x: fn(x) if is_plain(x) else x, parts, is_leaf=is_plain)


def found_in(kind: type | tuple[type, ...], parts: Any) -> list[Any]:
    """All parts of a kind, also inside `& | ~`."""
    is_kind = lambda x: isinstance(x, kind)  # noqa: E731
    return [x for x in jax.tree.leaves(parts, is_leaf=is_kind) if is_kind(x)]


def _closed(part: str, plain: Plain, function: Callable, *operands: Any) -> Closed:
    try:
        found = jax.make_jaxpr(function)(*operands)
    except (TypeError, ValueError) as error:
        t, s = operands[0].shape[-2], operands[-1].shape[-2 if part == "score" else -1]
        raise ValueError(
            f"{part}: expected a function of any block of scores, by their positions, got {plain!r}, which fails for "
            f"{t} queries and {s} keys: {error} Index arrays by q_pos and k_pos, give them as values (masks.dense, "
            "mods.bias), or ask for implementation='reference'."
        ) from error
    return Closed(found.jaxpr, found.consts)
