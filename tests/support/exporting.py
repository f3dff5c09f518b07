"""Programs exported with symbolic sizes, against the direct call at several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from tests.support.arrays import check_close
from tests.support.tolerances import GRADIENT

SYMBOLIC = {"batch": ("b", 6), "length": (3, "t"), "both": ("b", "t"), "bounded": ("b", "t")}
"""Batch size and length of a program; names are symbols.

Bounded symbols are known to make few scores, for which layers and models choose the dense formula. Without bounds they
choose blockwise, or linear attention where the rule allows it.
"""
CONSTRAINTS = {"bounded": ["b <= 4", "t <= 16"]}
SIZES = {
    "batch": ((1, 6), (4, 6)),
    "length": ((3, 1), (3, 11)),
    "both": ((1, 1), (4, 11)),
    "bounded": ((1, 1), (4, 11)),
}
"""Batch sizes and lengths at which such a program runs: one row, and several tiles, the last of them padded."""


def symbolic_sizes(kind: str) -> tuple[Any, ...]:
    """Batch size and length as numbers and symbols of one scope."""
    b, t = export.symbolic_shape("b, t", constraints=CONSTRAINTS.get(kind, ()))
    return tuple({"b": b, "t": t}.get(size, size) for size in SYMBOLIC[kind])


def spec(*shape: Any, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """An argument of a program."""
    return jax.ShapeDtypeStruct(shape, dtype)


def like(tree: Any) -> Any:
    """The arrays of a tree as arguments of a program."""
    return jax.tree.map(lambda x: spec(*x.shape, dtype=x.dtype), tree)


def outputs_and_gradients(function: Callable, argnums: tuple[int, ...]) -> Callable:
    """`function`, as a function that also returns the gradients of a sum over all floating outputs."""

    def loss(*arguments: Any) -> tuple[jax.Array, Any]:
        outputs = jax.tree.leaves(function(*arguments))
        return sum(jnp.sum(jnp.sin(x)) for x in outputs if jnp.issubdtype(x.dtype, jnp.floating)), outputs

    return lambda *arguments: jax.tree.leaves(jax.value_and_grad(loss, argnums, has_aux=True)(*arguments))


def check_exported(
    function: Callable,
    specs: tuple,
    arguments: Iterable[tuple],
    argnums: tuple[int, ...],
    direct: Callable | None = None,
) -> None:
    """Export outputs and gradients of a function once, and compare with a direct call for each of the arguments.

    The direct call is that of `direct`, or of the same function.
    """
    exported = export.export(jax.jit(outputs_and_gradients(function, argnums)))(*specs)
    run = jax.jit(outputs_and_gradients(direct or function, argnums))
    for each in arguments:
        check_close(exported.call(*each), run(*each), GRADIENT["float32"])
