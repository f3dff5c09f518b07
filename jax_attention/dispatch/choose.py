"""Which implementation evaluates a problem. A named one never falls back.

1. reference   where a head has at most DENSE_SCORES scores: one product after the other is fastest
2. blockwise   else: linear memory, and tiles that the mask leaves empty cost nothing
   cudnn       never by itself: it has no forward mode and no second derivative
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from jax_attention.ground.numerics import matmul_precision
from jax_attention.implementations import blockwise, cudnn, reference
from jax_attention.implementations.blockwise.plan import Blockwise
from jax_attention.implementations.problem import Problem

IMPLEMENTATIONS: dict[str, ModuleType] = {
    "reference": reference,
    "blockwise": blockwise,
    "cudnn": cudnn,
}
BY_NAME = {"cudnn": cudnn.ON_REQUEST}
"""Those that `None` never takes, and why."""

DENSE_SCORES = 2**18
"""512 x 512: where both take the same time on a CPU (benchmarks/README.md)."""


def why_not(name: str, problem: Problem) -> str | None:
    """The reason why an implementation cannot evaluate a problem, or None if it can."""
    if not isinstance(name, str) or name not in IMPLEMENTATIONS:
        known = ", ".join(repr(x) for x in IMPLEMENTATIONS)
        return f"there is no implementation {name!r}; expected None, one of {known}, or Blockwise(tile=...)"
    return cudnn.why_not(problem) if name == "cudnn" else None


def preferred(problem: Problem) -> tuple[str, str]:
    """What `implementation=None` takes, and why."""
    rows, columns = problem.score_shape[-2:]
    size = f"{rows:,} x {columns:,} scores per head"
    if rows * columns <= DENSE_SCORES:
        return "reference", f"{size}, at most {DENSE_SCORES:,}, are computed fastest all at once"
    return "blockwise", f"{size}, more than {DENSE_SCORES:,}, are computed tile by tile"


def choose(problem: Problem) -> ModuleType:
    """The named implementation, or the preferred one."""
    name = "blockwise" if isinstance(problem.implementation, Blockwise) else problem.implementation
    if name is None:
        return IMPLEMENTATIONS[preferred(problem)[0]]
    reason = why_not(name, problem)
    if reason is not None:
        raise ValueError(f"implementation: {reason}. Leave it None to choose automatically; see explain(...).")
    return IMPLEMENTATIONS[name]


def evaluate(problem: Problem, what: str) -> Any:
    """`attend`, `weights` or `attend_with_stats` of the chosen implementation; all its products in one precision."""
    with matmul_precision(problem.precision):
        return getattr(choose(problem), what)(problem)
