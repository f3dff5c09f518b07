"""What is measured and compared of a function: itself, its gradient, a tangent, a Hessian product."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def derivatives_of(forward: Callable) -> dict[str, Callable]:
    """By name, all as functions of the arguments of `forward`, which also serve as directions."""
    gradient = jax.grad(lambda *x: jnp.sum(jnp.sin(forward(*x))), (0, 1, 2))
    return {
        "forward": forward,
        "gradient": gradient,
        "jvp": lambda *x: jax.jvp(forward, x, x),
        "hvp": lambda *x: jax.jvp(gradient, x, x),
    }


def check_memory_is_linear(run: Callable, lengths: tuple[int, int], size: int) -> None:
    """Of a function of three arrays `[length, size]`: temporary bytes at one length and at twice that."""
    assert lengths[1] == 2 * lengths[0]
    used = []
    for length in lengths:
        x = jax.ShapeDtypeStruct((length, size), jnp.float32)
        used.append(jax.jit(run).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes)
    assert used[1] < 32 * 2**20
    assert used[1] <= 2.15 * used[0]
