"""`precision=` reaches every product. Elsewhere such a flag was accepted and ignored (flax#4008, jax#7010)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jax_attention import attend, masks, scores
from jax_attention.testing.jaxprs import equations
from tests.support.arrays import normal_arrays, query_key_value


def products(f, *args) -> list:
    """The matrix products in the jaxpr of `f`."""
    return [e for e in equations(f, *args) if e.primitive.name == "dot_general"]


PRESET = jax.lax.DotAlgorithmPreset.BF16_BF16_F32


@pytest.mark.parametrize("precision", ["highest", "default", "high", jax.lax.Precision.HIGHEST, PRESET], ids=str)
@pytest.mark.parametrize("name", ["default", "general", "additive", "plain"])
def test_precision_reaches_every_product(precision, name):
    """Forward and backward, also in a score written by a user."""
    q, k, v, w = normal_arrays(0, (3, 4), (5, 4), (5, 2), (4, 4))
    score = {
        "default": None,
        "general": scores.general(w),
        "additive": scores.additive(w, w),
        "plain": lambda q, k: jnp.einsum("th,sh->ts", q @ w, k),
    }[name]
    expected = (
        precision if precision is PRESET else getattr(jax.lax.Precision, getattr(precision, "name", precision).upper())
    )

    def f(q, k, v, precision):
        return jnp.sum(attend(q, k, v, score=score, mask=masks.causal(), precision=precision))

    def backward(q, k, v, precision):
        return jax.grad(f, (0, 1, 2))(q, k, v, precision)

    for g in (f, backward):
        dots = products(lambda *x, g=g: g(*x, precision), q, k, v)
        assert len(dots) >= 2
        pairs = [e.params["precision"] for e in dots]
        assert {x for pair in pairs for x in (pair if isinstance(pair, tuple) else (pair,))} == {expected}
        unset = products(lambda *x, g=g: g(*x, None), q, k, v)
        assert {e.params["precision"] for e in unset} == {None}
    dots_of_vjp = products(lambda *x: jax.vjp(lambda *y: attend(*y, precision="highest"), *x)[1](v[:3]), q, k, v)
    assert len(dots_of_vjp) >= 5


def test_precision_does_not_leak_out_of_the_call():
    q, k, v = query_key_value()
    dots = products(lambda: (attend(q, k, v, precision="highest"), q @ k.T))
    assert sorted(e.params["precision"] is None for e in dots) == [False, False, True]


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_precision_reaches_the_derivative_of_a_compiled_call(implementation):
    """The derivative is traced after the call has returned."""
    q, k, v = query_key_value()
    run = jax.jit(lambda *x: jnp.sum(attend(*x, precision="highest", implementation=implementation)))
    dots = products(jax.grad(run, (0, 1, 2)), q, k, v)
    assert len(dots) >= 5
    assert {e.params["precision"] for e in dots} == {(jax.lax.Precision.HIGHEST,) * 2}
