"""Choose an implementation, compile the call once per (shapes, rule), evaluate it. A named one never falls back.

1. reference         where scores are few: one product after the other is fastest
2. linear_attention  else, where sums over keys do not depend on the query: work and memory are O(T)
3. blockwise         else: linear memory, and tiles that the mask leaves empty cost nothing
   cudnn             never by itself: it has no forward mode and no second derivative
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.numerics import matmul_precision
from jax_attention.core.sizes import is_at_most, size_text
from jax_attention.core.struct import NamedArray, is_struct, map_arrays
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.blockwise import Blockwise
from jax_attention.implementations.call import AttentionCall, ResultKind
from jax_attention.implementations.cudnn import Cudnn
from jax_attention.implementations.dense import Dense
from jax_attention.implementations.linear_attention import LinearAttention

IMPLEMENTATIONS: tuple[Implementation, ...] = (Dense(), LinearAttention(), Blockwise(), Cudnn())
BY_NAME = {implementation.name: implementation for implementation in IMPLEMENTATIONS}

MAX_DENSE_SCORES_PER_HEAD = 2**18
"""512 x 512: up to here dense and blockwise take the same time on a CPU (docs/blockwise.md)."""
MAX_DENSE_SCORES = 2**21
"""The same, on a CPU, for all heads together."""
MAX_DENSE_SCORES_PER_TINY_HEAD = 2**14
"""128 x 128: heads up to here are dense in any number, which is faster in training.

The same three numbers decide about linear attention, for which they were not measured by themselves; it also needs
S > 2 E, where its 2 F E operations per row are fewer than the S (F + E) of all scores.
"""


def evaluate(call: AttentionCall) -> Any:
    """Result of the call by the chosen implementation; all products in the precision of the call."""
    call = call.replace(implementation=choose(call))
    with matmul_precision(call.precision):
        return cached_jit(call) if call.implementation.uses_cached_jit else _uncached(call)


def compute(call: AttentionCall) -> Any:
    """Result of the call by its implementation."""
    if call.result is ResultKind.WEIGHTS:
        return call.implementation.weights(call)
    if call.result is ResultKind.STATISTICS:
        return call.implementation.attend_with_stats(call)
    return call.implementation.attend(call)


def choose(call: AttentionCall) -> Implementation:
    """The requested implementation, or the preferred one."""
    if call.implementation is None:
        return preferred(call)[0]
    implementation = as_implementation(call.implementation)
    reason = implementation.why_not(call)
    if reason is not None:
        raise ValueError(f"implementation: {reason}. Leave it None to choose automatically; see explain(...).")
    return implementation


def as_implementation(x: Any) -> Implementation:
    """An implementation from its short form."""
    if isinstance(x, Implementation):
        return x
    if not isinstance(x, str) or x not in BY_NAME:
        names = ", ".join(map(repr, BY_NAME))
        raise ValueError(
            f"implementation: there is no implementation {x!r}; expected None, one of {names}, or an instance such as "
            "Blockwise(tile=...). Leave it None to choose automatically; see explain(...)."
        )
    return BY_NAME[x]


def preferred(call: AttentionCall) -> tuple[Implementation, str]:
    """What `implementation=None` takes, and why."""
    heads, (rows, columns) = call.batch_size, call.score_shape[-2:]
    size, value_size = " x ".join(map(size_text, (heads, rows, columns))) + " scores", call.value.shape[-1]
    if _few(heads, rows * columns):
        return BY_NAME["reference"], f"{size} are few, and computed fastest all at once"
    if is_at_most(columns, value_size):
        return BY_NAME["reference"], f"{size}, no more than the output has entries, are computed fastest all at once"
    linear = BY_NAME["linear_attention"]
    if not is_at_most(columns, 2 * value_size) and linear.why_not(call) is None:
        return linear, f"{size} need not be computed: keys are summed first"
    return BY_NAME["blockwise"], f"{size} are computed tile by tile"


def _few(heads: int, scores: int) -> bool:
    on_cpu = jax.default_backend() == "cpu"
    few_together = is_at_most(heads * scores, MAX_DENSE_SCORES) or not on_cpu
    few_per_head = is_at_most(scores, MAX_DENSE_SCORES_PER_HEAD) and few_together
    return is_at_most(scores, MAX_DENSE_SCORES_PER_TINY_HEAD) or few_per_head


def cached_jit(call: AttentionCall) -> Any:
    """`compute(call)` under `jit`, also inside other transformations.

    Equal layers of a model share one trace, and calls of a bare `jax.grad` one program. A call with a user's function
    is not cached: what that function looks up may change from call to call, and an old program would not notice.
    """
    if _holds_function(call.rule):
        return _uncached(call)
    call = map_arrays(_as_argument, call)
    return _compute_cached(StaticCall(call), [x for x in jax.tree.leaves(call) if isinstance(x, jax.Array)])


def _uncached(call: AttentionCall) -> Any:
    """One operation after the other, unless `jax_debug_infs` would then refuse each masked score."""
    config: Any = jax.config  # which names the type knows differs between versions of jax
    if not config.jax_debug_infs:
        return compute(call)
    static = StaticCall(call)
    arrays = [x for x in jax.tree.leaves(call) if isinstance(x, jax.Array)]
    return jax.jit(lambda arrays: compute(static.with_arrays(arrays)))(arrays)


class StaticCall:
    """The static part of a call (the jit cache key): its structure, and the NumPy arrays and numbers inside.

    Two are equal if all of it is, so that equal calls share one program.
    """

    def __init__(self, call: AttentionCall):
        leaves, self.structure = jax.tree.flatten(call)
        self.leaves = tuple(None if isinstance(x, jax.Array) else x for x in leaves)
        self._key = (self.structure, tuple(map(_hashable, self.leaves)))

    def with_arrays(self, arrays: list[jax.Array]) -> AttentionCall:
        """The call with its JAX arrays put back."""
        rest = iter(arrays)
        return jax.tree.unflatten(self.structure, [next(rest) if x is None else x for x in self.leaves])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticCall) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@partial(jax.jit, static_argnums=0)
def _compute_cached(static: StaticCall, arrays: list[jax.Array]) -> Any:
    return compute(static.with_arrays(arrays))


def _as_argument(entry: NamedArray) -> Any:
    """NumPy arrays become arguments of the program, so that another bias or other lengths need no other program.

    Except where they decide which tiles are computed.
    """
    static = entry.layout or not isinstance(entry.array, (np.ndarray, np.generic))
    return entry.array if static else jnp.asarray(entry.array)


def _hashable(x: Any) -> Any:
    return (x.shape, x.dtype, x.tobytes()) if isinstance(x, (np.ndarray, np.generic)) else (type(x), x)


def _holds_function(x: Any) -> bool:
    """Whether any field holds a callable: a user's function, or one inside a part such as `scores.features(f)`."""
    if isinstance(x, tuple):
        return any(map(_holds_function, x))
    if is_struct(x):
        return any(_holds_function(getattr(x, field.name)) for field in dataclasses.fields(x))
    return callable(x)
