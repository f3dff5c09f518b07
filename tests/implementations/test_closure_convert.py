"""Plain functions may close over any array, under every way to differentiate, compile and map the call."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jax_attention import Blockwise, attend
from tests.support.arrays import check_close, normal
from tests.support.tiers import slow_except

IDS = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]


def loss(implementation: object):
    def run(q: jax.Array, b: jax.Array, ids: jax.Array) -> jax.Array:
        output = attend(
            q,
            q,
            q,
            score=lambda q, k: (q * b[0]) @ k.T,
            mask=lambda s, t: ids[s] == ids[t],
            mods=(lambda z, s, t: z + b[s] * t * (ids[t] + 1),),
            implementation=implementation,
        )
        return jnp.sum(jnp.sin(output))

    return run


TRANSFORMATIONS = {
    "grad": lambda f, *x: jax.grad(f, (0, 1))(*x),
    "jit of grad": lambda f, *x: jax.jit(jax.grad(f, (0, 1)))(*x),
    "grad of jit": lambda f, *x: jax.grad(jax.jit(f), (0, 1))(*x),
    "jvp of jit": lambda f, q, b, ids: jax.jvp(jax.jit(lambda q, b: f(q, b, ids)), (q, b), (b[:, None] + q, b)),
    "vmap of grad": lambda f, q, b, ids: jax.vmap(jax.grad(f, (0, 1)), (0, None, 0))(
        jnp.stack([q, 2 * q]), b, jnp.stack([ids, 0 * ids])
    ),
    "Hessian of jit": lambda f, q, b, ids: jax.hessian(jax.jit(lambda b: f(q, b, ids)))(b),
    "scan of checkpoint": lambda f, q, b, ids: jax.grad(
        lambda b: jax.lax.scan(lambda c, x: (c + jax.checkpoint(f)(q, b * x, ids), None), 0.0, jnp.arange(3.0))[0]
    )(b),
}


@pytest.mark.parametrize("transformation", slow_except(("jit of grad", "grad of jit"), TRANSFORMATIONS))
def test_closed_over_arrays(transformation, x64):
    arguments = normal(0, 10, 3), normal(1, 10), jnp.array(IDS)
    actual, expected = (
        jax.tree.leaves(TRANSFORMATIONS[transformation](loss(name), *arguments))
        for name in (Blockwise((4, 3)), "reference")
    )
    check_close(actual, expected, 1e-10)
