"""Sums in at least float32: over microbatches and batches, in norms, and in the running means of an optimiser.

A sum in bfloat16 stops growing at 256 times its terms, and the square of 300 overflows in float16. Whatever is summed
goes through `widen` first, so that optax and `jnp.sum` add what they get in a dtype that can hold the result.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_attention.core.numerics import compute_dtype


def widen(tree: Any) -> Any:
    """The pytree with its floating-point numbers in at least float32; float64 and integers stay as they are."""

    def widen_leaf(x: Any) -> Any:
        dtype = jnp.result_type(x)
        is_narrow = jnp.issubdtype(dtype, jnp.floating) and compute_dtype(dtype) != dtype
        return jnp.asarray(x, compute_dtype(dtype)) if is_narrow else x

    return jax.tree.map(widen_leaf, tree)


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm of all numbers of a pytree together, `[]`; not finite if one of them or the sum is not."""
    return optax.tree.norm(widen(tree))


def with_float32_state(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Run a transformation, and keep its state, in at least float32; updates come back in the dtype of the gradients.

    optax computes in the dtype of parameters and gradients: there a norm stops growing, running means of squares
    overflow, and Adam's epsilon of 1e-8 is 0 in float16, so that a gradient of 0 gives 0 / 0.
    """
    inner = optax.with_extra_args_support(inner)

    def update(gradients: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, state = inner.update(widen(gradients), state, widen(params), **extra)
        return jax.tree.map(lambda u, g: u.astype(jnp.result_type(g)), updates, gradients), state

    return optax.GradientTransformationExtraArgs(lambda params: inner.init(widen(params)), update)
