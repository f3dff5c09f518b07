"""What a function does, read from its jaxpr."""

from __future__ import annotations

import jax


def equations(f, *args) -> list:
    """All equations of the jaxpr, those of inner jaxprs included."""
    found, waiting = [], [jax.make_jaxpr(f)(*args).jaxpr]
    while waiting:
        for equation in waiting.pop().eqns:
            found.append(equation)
            waiting += [
                getattr(x, "jaxpr", x)
                for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
                if is_jaxpr(x)
            ]
    return found


def is_jaxpr(x) -> bool:
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")
