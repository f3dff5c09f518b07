"""Which implementation evaluates a call. A named one never falls back.

1. reference         where scores are few: one product after the other is fastest
2. linear_attention  else, where sums over keys do not depend on the query: work and memory are O(T)
3. blockwise         else: linear memory, and tiles that the mask leaves empty cost nothing
   cudnn             never by itself: it has no forward mode and no second derivative
"""

from __future__ import annotations

from typing import Any

import jax

from jax_attention.attention.cached_jit import cached_jit
from jax_attention.core.numerics import matmul_precision
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.blockwise import Blockwise
from jax_attention.implementations.call import AttentionCall, Wanted
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
    """What the call wants, by the chosen implementation; all products in the precision of the call."""
    call = call.replace(implementation=choose(call))
    with matmul_precision(call.precision):
        return cached_jit(compute, call) if call.implementation.uses_cached_jit else compute(call)


def compute(call: AttentionCall) -> Any:
    """What the call wants, by its implementation."""
    if call.wanted is Wanted.WEIGHTS:
        return call.implementation.weights(call)
    if call.wanted is Wanted.STATISTICS:
        return call.implementation.attend_with_stats(call)
    return call.implementation.attend(call)


def choose(call: AttentionCall) -> Implementation:
    """The implementation asked for, or the preferred one."""
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
    size, value_size = f"{heads:,} x {rows:,} x {columns:,} scores", call.value.shape[-1]
    if _few(heads, rows * columns):
        return BY_NAME["reference"], f"{size} are few, and computed fastest all at once"
    if columns <= value_size:
        return BY_NAME["reference"], f"{size}, no more than the output has entries, are computed fastest all at once"
    linear = BY_NAME["linear_attention"]
    if columns > 2 * value_size and linear.why_not(call) is None:
        return linear, f"{size} need not be computed: keys are summed first"
    return BY_NAME["blockwise"], f"{size} are computed tile by tile"


def _few(heads: int, scores: int) -> bool:
    on_cpu = jax.default_backend() == "cpu"
    few_together = heads * scores <= MAX_DENSE_SCORES or not on_cpu
    return scores <= MAX_DENSE_SCORES_PER_TINY_HEAD or (scores <= MAX_DENSE_SCORES_PER_HEAD and few_together)
