"""A user's functions made into parts that hold the arrays they close over.

A derivative rule may be traced long after the call returned, and may only use arrays that it was given. So arrays that
a user's score, mods and mask close over, traced or not, become leaves of the call, and those of scores and mods can be
differentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from jax_attention.core.numerics import pvary_like
from jax_attention.core.struct import UserFunction, data_field, find_parts, named_arrays, struct
from jax_attention.implementations.call import AttentionCall
from jax_attention.masks import Mask
from jax_attention.scores import Score


@struct
class ClosedFunction(Score, Mask):
    """A user's score, mod or mask whose arrays are leaves. Called as the part that it replaces."""

    may_forbid_pairs = True
    jaxpr: Any
    arrays: list[Any] = data_field()

    def __call__(self, *operands: jax.Array) -> jax.Array:
        run = jax.extend.core.jaxpr_as_fun(jax.extend.core.ClosedJaxpr(self.jaxpr, self.arrays))
        shapes = [x.aval.shape for x in self.jaxpr.invars]
        return run(*(x.reshape(shape) for x, shape in zip(operands, shapes, strict=True)))[0]

    tile = __call__

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Batch dimensions of its arguments and results."""
        return jnp.broadcast_shapes(*(x.aval.shape[:-2] for x in (*self.jaxpr.invars, *self.jaxpr.outvars)))


def closure_convert(tile: tuple[int, int], call: AttentionCall) -> AttentionCall:
    """The same call, its user functions traced for tiles of this height and width."""
    height, width = tile

    def example(*shape: int, dtype: Any = call.query.dtype) -> jax.Array:
        return pvary_like(jnp.zeros(shape, dtype), call)

    query = example(*call.query.shape[:-2], height, call.query.shape[-1])
    key = example(*call.key.shape[:-2], width, call.key.shape[-1])
    q_pos = example(*call.query_positions.shape[:-1], height, 1, dtype=call.query_positions.dtype)
    k_pos = example(*call.key_positions.shape[:-1], 1, width, dtype=call.key_positions.dtype)
    scores = example(*call.batch_shape, height, width)

    def convert_mask(mask: UserFunction) -> ClosedFunction:
        def checked(*positions: jax.Array) -> jax.Array:
            allowed = mask(*positions)
            if jnp.broadcast_shapes(allowed.shape, scores.shape) != scores.shape:
                raise ValueError(f"{allowed.shape} does not broadcast to {scores.shape}.")
            return allowed

        return _trace("mask", mask, checked, q_pos, k_pos)

    score = _map_functions(lambda f: _trace("score", f, f.tile, query, key), call.score)
    mods: tuple[Any, ...] = ()
    for mod in call.mods:
        wide = scores.astype(_score_dtype(scores, (call.score, *mods)))
        mods += (_map_functions(lambda f, wide=wide: _trace("mods", f, f, wide, q_pos, k_pos), mod),)
    return call.replace(score=score, mods=mods, mask=_map_functions(convert_mask, call.mask))


def _score_dtype(scores: jax.Array, parts: tuple[Any, ...]) -> Any:
    """The dtype of scores after these parts, whose arrays may widen them."""
    dtypes = [x.array.dtype for x in named_arrays(parts) if hasattr(x.array, "dtype")]
    dtypes += [f.jaxpr.outvars[0].aval.dtype for f in find_parts(ClosedFunction, parts)]
    return jnp.result_type(scores, *(x for x in dtypes if jnp.issubdtype(x, jnp.floating)))


def _map_functions(fn: Callable[[UserFunction], ClosedFunction], parts: Any) -> Any:
    """`parts` with `fn(f)` in the place of each user function, also inside `& | ~`."""

    def is_function(x: Any) -> bool:
        return isinstance(x, UserFunction)

    return jax.tree.map(lambda x: fn(x) if is_function(x) else x, parts, is_leaf=is_function)


def _trace(argument: str, wrapper: UserFunction, function: Callable, *examples: Any) -> ClosedFunction:
    try:
        closed = jax.make_jaxpr(function)(*examples)
    except (TypeError, ValueError) as error:
        t, s = examples[0].shape[-2], examples[-1].shape[-2 if argument == "score" else -1]
        raise ValueError(
            f"{argument}: expected a function of any block of scores, by their positions, got {wrapper!r}, which fails "
            f"for {t} queries and {s} keys: {error} Index arrays by q_pos and k_pos, pass them as parts (masks.dense, "
            "mods.bias), or ask for implementation='reference'."
        ) from error
    return ClosedFunction(closed.jaxpr, closed.consts)
