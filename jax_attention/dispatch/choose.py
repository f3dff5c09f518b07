"""Which implementation evaluates a problem. A named one never falls back.

1. reference     where a head has at most DENSE_SCORES scores: one product after the other is fastest
2. linear_time   else, where the rule allows sums over keys that no query has looked at: work and memory are O(T)
3. blockwise     else: linear memory, and tiles that the mask leaves empty cost nothing
   cudnn         never by itself: it has no forward mode and no second derivative
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

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

DENSE_SCORES = 2**18
"""512 x 512: where reference and blockwise take the same time on a CPU (benchmarks/README.md). The same number serves
for linear_time, not measured by itself; it also needs S > 2 E, where 2 F E operations per row are fewer than S (F + E).
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
    rows, columns = problem.score_shape[-2:]
    size = f"{rows:,} x {columns:,} scores per head"
    if rows * columns <= DENSE_SCORES:
        return "reference", f"{size}, at most {DENSE_SCORES:,}, are computed fastest all at once"
    if columns <= problem.value.shape[-1]:
        return "reference", f"{size}, no more than the output has entries, are computed fastest all at once"
    if columns > 2 * problem.value.shape[-1] and why_not("linear_time", problem, what) is None:
        return "linear_time", f"{size}, more than {DENSE_SCORES:,}, need not be computed: keys are summed first"
    return "blockwise", f"{size}, more than {DENSE_SCORES:,}, are computed tile by tile"


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
