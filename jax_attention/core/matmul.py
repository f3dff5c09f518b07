"""A matmul of two matrices whose gradients XLA on CPU computes fast."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def matmul(a: jax.Array, b: jax.Array, precision: Any = None, preferred_element_type: Any = None) -> jax.Array:
    """`a[..., M, K] @ b[..., K, N]`, derivatives too; leading axes broadcast; None is the current precision.

    The gradient of b is `a^T g`. XLA on CPU computes it two to four times as slow as a matmul of two matrices that lie
    row by row in memory, so for a single pair of matrices the smaller operand is copied first. (Stacks of small ones
    gain nothing.) The rule is linear in the tangents, so forward mode and higher orders work as ever.
    """
    if precision is None:  # fixed here: the derivative may be traced outside a `with jax.default_matmul_precision`
        precision = jax.config.jax_default_matmul_precision
    if a.ndim == b.ndim == 2 and jax.default_backend() == "cpu":
        return _matmul_2d(a, b, precision, preferred_element_type)
    return jnp.matmul(a, b, precision=precision, preferred_element_type=preferred_element_type)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _matmul_2d(a: jax.Array, b: jax.Array, precision: Any, dtype: Any) -> jax.Array:
    return jnp.matmul(a, b, precision=precision, preferred_element_type=dtype)


@_matmul_2d.defjvp
def _matmul_2d_jvp(precision: Any, dtype: Any, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (a, b), (da, db) = primals, tangents
    product = partial(jnp.matmul, precision=precision, preferred_element_type=dtype)
    # Not `_matmul_2d`: a remat policy that saves products must see a product, not a call with a custom derivative.
    return product(a, b), product(da, b) + _times_tangent(a, db, product)


def _times_tangent(a: jax.Array, db: jax.Array, product: Any) -> jax.Array:
    """`a @ db`, written so that its transpose is `copy(a^T) @ g` or `(copy(g^T) @ a)^T`, whichever copies less."""
    if a.shape[-1] <= db.shape[-1]:
        return product(_row_by_row(a.T).T, _row_by_row(db))
    return _row_by_row(product(_row_by_row(db.T), a.T)).T


def _row_by_row(x: jax.Array) -> jax.Array:
    """x itself, and XLA may neither undo the copy nor choose another order of axes for it: a vector has only one.

    (Without the vector, a transposed layout can reach a stack of products, on which XLA aborts.)
    """
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)
