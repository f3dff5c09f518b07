"""Which implementation evaluates a problem. A named one never falls back.

1. reference     where scores are few: one product after the other is fastest
2. linear_time   else, where the rule allows sums over keys that no query has looked at: work and memory are O(T)
3. blockwise     else: linear memory, and tiles that the mask leaves empty cost nothing
   cudnn         never by itself: it has no forward mode and no second derivative
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import jax

from jax_attention.dispatch.compiled import run_compiled
from jax_attention.ground.numerics import matmul_precision
from jax_attention.implementations import blockwise, cudnn, linear_time, reference
from jax_attention.implementations.blockwise.plan import Blockwise
from jax_attention.implementations.problem import Problem

IMPLEMENTATIONS: dict[str, ModuleType] = {
    "reference": reference,
    "linear_time": linear_time,
    "blockwise": blockwise,
    "cudnn": cudnn,
}
BY_NAME = {"cudnn": cudnn.ON_REQUEST}
"""Those that `None` never takes, and why."""

OF_A_HEAD, OF_ALL, OF_A_TINY_HEAD = 2**18, 2**21, 2**14
"""Scores are few if a head has no more than the first (512 x 512) and, on a CPU, all heads together no more than the
second: there reference and blockwise take the same time (docs/blockwise.md). Heads of at most the third (128 x 128)
are few in any number, which is faster in training. The same numbers serve for linear_time, not measured by itself; it
also needs S > 2 E, where 2 F E operations per row are fewer than S (F + E).
"""


def why_not(name: str, problem: Problem, what: str = "attend") -> str | None:
    """The reason why an implementation cannot evaluate a problem, or None if it can."""
    if not isinstance(name, str) or name not in IMPLEMENTATIONS:
        known = ", ".join(repr(x) for x in IMPLEMENTATIONS)
        return f"there is no implementation {name!r}; expected None, one of {known}, or Blockwise(tile=...)"
    module = IMPLEMENTATIONS[name]
    if not hasattr(module, what):
        return f"{name} makes the output alone; weights and statistics come from 'reference' and 'blockwise'"
    return module.why_not(problem) if hasattr(module, "why_not") else None


def preferred(problem: Problem, what: str = "attend") -> tuple[str, str]:
    """What `implementation=None` takes, and why."""
    heads, rows, columns = math.prod(problem.lead), *problem.score_shape[-2:]
    size = f"{heads:,} x {rows:,} x {columns:,} scores"
    if _few(heads, rows * columns):
        return "reference", f"{size} are few, and computed fastest all at once"
    if columns <= problem.value.shape[-1]:
        return "reference", f"{size}, no more than the output has entries, are computed fastest all at once"
    if columns > 2 * problem.value.shape[-1] and why_not("linear_time", problem, what) is None:
        return "linear_time", f"{size} need not be computed: keys are summed first"
    return "blockwise", f"{size} are computed tile by tile"


def _few(heads: int, scores: int) -> bool:
    on_cpu = jax.default_backend() == "cpu"
    return scores <= OF_A_TINY_HEAD or (scores <= OF_A_HEAD and (heads * scores <= OF_ALL or not on_cpu))


def choose(problem: Problem, what: str = "attend") -> ModuleType:
    """The named implementation, or the preferred one."""
    name = "blockwise" if isinstance(problem.implementation, Blockwise) else problem.implementation
    if name is None:
        return IMPLEMENTATIONS[preferred(problem, what)[0]]
    reason = why_not(name, problem, what)
    if reason is not None:
        raise ValueError(f"implementation: {reason}. Leave it None to choose automatically; see explain(...).")
    return IMPLEMENTATIONS[name]


def evaluate(problem: Problem, what: str) -> Any:
    """`attend`, `weights` or `attend_with_stats` of the chosen implementation; all its products in one precision."""
    module = choose(problem, what)
    run = getattr(module, what)
    with matmul_precision(problem.precision):
        return run(problem) if module is reference else run_compiled(run, problem)
