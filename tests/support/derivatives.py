"""Derivatives of a function whose results or memory are compared: gradient, tangent, Hessian product."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def derivatives_of(forward: Callable) -> dict[str, Callable]:
    """`forward`, its gradient, tangent and Hessian product by name. The arguments also serve as tangents."""
    gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(forward(*x))), (0, 1, 2))
    return {
        "forward": forward,
        "gradient": gradient,
        "jvp": lambda *x: jax.jvp(forward, x, x),
        "hvp": lambda *x: jax.jvp(gradient, x, x),
    }


def check_memory_is_linear(run: Callable, lengths: tuple[int, int], size: int) -> None:
    """Check that twice the length takes at most 2.15 times the temporary memory.

    `run` is a function of three arrays `[length, size]`; its memory is measured at both lengths.
    """
    assert lengths[1] == 2 * lengths[0]
    temporary_bytes = []
    for length in lengths:
        x = jax.ShapeDtypeStruct((length, size), jnp.float32)
        temporary_bytes.append(jax.jit(run).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes)
    assert temporary_bytes[1] < 32 * 2**20
    # Linear growth is a factor of 2, quadratic growth a factor of 4.
    assert temporary_bytes[1] <= 2.15 * temporary_bytes[0]
