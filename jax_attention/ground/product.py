"""A product of two matrices whose gradients XLA on CPU computes fast."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_jvp
def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a[..., M, K] @ b[..., K, N]`; leading axes broadcast.

    The gradient of b is `a^T g`. XLA on CPU computes it up to three times as slow as a product of two matrices that lie
    row by row in memory, so the smaller operand is copied first. The rule is linear in the tangents, so forward mode
    and higher orders work as ever.
    """
    return a @ b


@product.defjvp
def _product_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (a, b), (da, db) = primals, tangents
    return a @ b, da @ b + _linear(a, db)


def _linear(a: jax.Array, db: jax.Array) -> jax.Array:
    """`a @ db`; barriers keep XLA from joining a transposition with the product after it."""
    if jax.default_backend() != "cpu":
        return a @ db
    still = jax.lax.optimization_barrier
    if a.shape[-1] <= db.shape[-1]:
        return _turned(still(_turned(still(a)))) @ still(db)
    return _turned(still(still(_turned(db)) @ _turned(a)))


def _turned(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)
