"""The equations of a traced function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def equations(f: Callable, *arguments: Any) -> list[Any]:
    """All equations of the jaxpr of `f`, including those of inner jaxprs."""
    collected, pending = [], [jax.make_jaxpr(f)(*arguments).jaxpr]
    while pending:
        for equation in pending.pop().eqns:
            collected.append(equation)
            pending += [
                getattr(x, "jaxpr", x)
                for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
                if is_jaxpr(x)
            ]
    return collected


def is_jaxpr(x: Any) -> bool:
    """Whether x is a jaxpr, open or closed."""
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")
