"""Which implementation evaluates a problem. A named one never falls back."""

from __future__ import annotations

from types import ModuleType

from jax_attention.implementations import blockwise, reference
from jax_attention.implementations.problem import Problem

IMPLEMENTATIONS: dict[str, ModuleType] = {"reference": reference, "blockwise": blockwise}
"""In the order in which `implementation=None` tries them."""


def why_not(name: str, problem: Problem) -> str | None:
    """The reason why an implementation cannot evaluate a problem, or None if it can."""
    if name not in IMPLEMENTATIONS:
        known = ", ".join(repr(x) for x in IMPLEMENTATIONS)
        return f"there is no implementation {name!r}; expected None or one of {known}"
    return None


def choose(problem: Problem) -> ModuleType:
    """The named implementation, or the first that can evaluate the problem."""
    name = problem.implementation
    if name is None:
        return next(module for key, module in IMPLEMENTATIONS.items() if why_not(key, problem) is None)
    reason = why_not(name, problem)
    if reason is not None:
        raise ValueError(f"implementation: {reason}. Leave it None to choose automatically; see explain(...).")
    return IMPLEMENTATIONS[name]
