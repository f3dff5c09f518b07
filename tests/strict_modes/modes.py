"""Call a case under one of JAX's strict modes, forward or backward."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from tests.models.small import filled, jit

MODES = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank raise": lambda: jax.numpy_rank_promotion("raise"),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "x64": lambda: jax.enable_x64(True),
}
TRACED = ("strict promotion", "rank raise", "x64")
"""Modes that refuse, or widen, before anything runs."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of a public name.

    Attributes:
        make: makes the arrays or the module that gradients are taken of; None where the call takes none.
        call: what is called with them; its arrays are the result.
        no_gradient: why the call has no gradient, "" if it has one.
        excepted: modes that the call cannot run under, each with a reason.
    """

    make: Callable[[], Any] | None
    call: Callable[..., Any]
    no_gradient: str = ""
    excepted: tuple[tuple[str, str], ...] = ()


def run(case: Case, modes: Iterable[str], gradient: bool) -> list[jax.Array]:
    """The arrays of the result, or of the gradient, computed under the modes; abstract ones where tracing decides."""
    modes = tuple(modes)
    with contextlib.ExitStack() as stack:
        for mode in modes:
            stack.enter_context(MODES[mode]())
        call = (lambda _: case.call()) if case.make is None else case.call
        make = (lambda: ()) if case.make is None else case.make
        f = gradient_of(call) if gradient else call
        if set(modes) <= set(TRACED):
            return jax.tree.leaves(jax.eval_shape(lambda: only_arrays(f(make()))))
        return jax.tree.leaves(jit(lambda point: only_arrays(f(point)))(filled(make)))


def only_arrays(tree: Any) -> list[jax.Array]:
    """The arrays of a result, which may hold texts as well."""
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]


def gradient_of(call: Callable[[Any], Any]) -> Callable[[Any], list[jax.Array]]:
    """Gradients of a number made of all finite results, by every float of the point."""

    def run(point: Any) -> list[jax.Array]:
        leaves, structure = jax.tree.flatten(point)
        places = [i for i, x in enumerate(leaves) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]

        def loss(floats: list[jax.Array]) -> jax.Array:
            own = [floats[places.index(i)] if i in places else x for i, x in enumerate(leaves)]
            found = [x for x in only_arrays(call(structure.unflatten(own))) if jnp.issubdtype(x.dtype, jnp.floating)]
            return sum(jnp.sum(jnp.sin(jnp.where(jnp.isfinite(x), x, 0.0)).astype(jnp.float32)) for x in found)

        return jax.grad(loss)([leaves[i] for i in places])

    return run
