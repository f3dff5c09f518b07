"""Map over batch entries one after the other; arrays that broadcast along the batch are shared, not repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.struct import NamedArray, UserFunction, find_parts, map_arrays
from jax_attention.implementations.blockwise.closure_convert import ClosedFunction
from jax_attention.implementations.call import AttentionCall


def batch_may_be_mapped(call: AttentionCall) -> bool:
    """Whether batch entries may follow one another, which is fastest on a single CPU, and only there.

    A user's score or mod may close over arrays with a head axis, and so must see all heads at once. A user's mask is
    traced first (`ClosedFunction`), after which it is known whether it returns heads.
    """
    functions = find_parts((UserFunction, ClosedFunction), (call.score, call.mods)) or find_parts(
        UserFunction, call.mask
    )
    sees_heads = any(size != 1 for mask in find_parts(ClosedFunction, call.mask) for size in mask.batch_shape)
    return jax.default_backend() == "cpu" and jax.device_count() == 1 and not functions and not sees_heads


def map_batch(run: Callable[[AttentionCall], Any], call: AttentionCall) -> Any:
    """`run` on the call of each batch entry; results, arrays or pytrees of them, get the batch dimensions back.

    Every array of a call has all batch dimensions, of size 1 where it is shared.
    """
    if not call.batch_shape:
        return run(call)
    if call.batch_shape[0] == 1:
        result = map_batch(run, _map_batched(lambda x: x[0], call))
        return jax.tree.map(lambda x: x[None], result)
    per_entry: list[jax.Array] = []
    _map_batched(lambda x: per_entry.append(jnp.asarray(x)) if x.shape[0] != 1 else None, call)

    def entry(arrays: list[jax.Array]) -> Any:
        rest = iter(arrays)
        return map_batch(run, _map_batched(lambda x: next(rest) if x.shape[0] != 1 else x[0], call))

    return jax.lax.map(entry, per_entry)


def _map_batched(fn: Callable[[Any], Any], call: AttentionCall) -> AttentionCall:
    """The call with `fn` of every array; Python numbers inside parts have no batch dimensions and stay."""

    def visit(entry: NamedArray) -> Any:
        return entry.array if isinstance(entry.array, (int, float)) else fn(entry.array)

    return map_arrays(visit, call)
