"""The equations of a function's jaxpr."""

from __future__ import annotations

import jax


def equations(f, *args) -> list:
    """All equations of the jaxpr of `f`, including those of inner jaxprs."""
    collected, pending = [], [jax.make_jaxpr(f)(*args).jaxpr]
    while pending:
        for equation in pending.pop().eqns:
            collected.append(equation)
            pending += [
                getattr(x, "jaxpr", x)
                for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
                if is_jaxpr(x)
            ]
    return collected


def is_jaxpr(x) -> bool:
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")
