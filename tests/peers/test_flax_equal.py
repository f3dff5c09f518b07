"""`flax_attention_fn()` inside Flax's multi-head modules, Linen and NNX: the same results and gradients as theirs."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jax_attention import flax_attention_fn
from tests.support.flax_layers import (
    CAUSAL,
    CLOSE,
    MASKS,
    PADDING,
    X,
    linen_layer,
    linen_variables,
    nnx_layer,
    operands,
)
from tests.support.tiers import slow_except
from tests.support.tolerances import GRADIENT


def outputs_and_gradients(runs, *inputs):
    """Of each run, in one program: its output, and the gradients of a nonlinear function of it by all inputs."""

    def of(run, *inputs):
        def loss(*inputs):
            out = run(*inputs)
            return jnp.sum(jnp.sin(out)), out

        (_, out), gradients = jax.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True)(*inputs)
        return out, gradients

    return jax.jit(lambda *inputs: [of(run, *inputs) for run in runs])(*inputs)


def assert_same(ours, theirs):
    (out, gradients), (expected, expected_gradients) = ours, theirs
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out, expected, **CLOSE)
    tolerance = GRADIENT["float32"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), gradients, expected_gradients
    )


@pytest.mark.parametrize("theirs", [linen.dot_product_attention, nnx.dot_product_attention])
def test_every_parameter_of_flax_exists(theirs):
    """By name and default; up to `module` also in their order, for positional callers."""
    ours, known = (inspect.signature(f).parameters for f in (flax_attention_fn(), theirs))
    assert set(known) <= set(ours)
    assert list(ours)[:12] == list(known)[:12]
    assert list(ours)[11] == "module"
    for name in set(known) - {"promote_dtype"}:  # a function there, None here: Flax is not imported
        assert ours[name].default == known[name].default, name


@pytest.mark.parametrize("name", slow_except(("per head",), MASKS))
def test_linen_equals_flax(name):
    runs = [
        lambda v, x, f=f: linen_layer(f).apply(v, x, mask=MASKS[name])
        for f in (flax_attention_fn(), linen.dot_product_attention)
    ]
    assert_same(*outputs_and_gradients(runs, linen_variables(), X))


@pytest.mark.parametrize(
    ("name", "options", "call"),
    [
        *(pytest.param(name, {}, {}, marks=pytest.mark.slow) for name in MASKS),
        pytest.param("none", {}, {"is_causal": True}, marks=pytest.mark.slow),
        pytest.param("padding", {}, {"is_causal": True}, marks=pytest.mark.slow),
        ("both", {"num_kv_heads": 1, "normalize_qk": True}, {}),  # grouped queries
    ],
)
def test_nnx_equals_flax(name, options, call):
    runs = []
    for attention_fn in (flax_attention_fn(), nnx.dot_product_attention):
        graph, state = nnx.split(nnx_layer(attention_fn, **options))
        runs.append(lambda state, x, graph=graph: nnx.merge(graph, state)(x, mask=MASKS[name], **call))
    # Both layers start with the same numbers.
    assert_same(*outputs_and_gradients(runs, state, X))


def test_linen_cross_attention():
    x = X[:, :3] + 1
    layers = [linen_layer(f) for f in (flax_attention_fn(), linen.dot_product_attention)]
    run = jax.jit(lambda *given: [layer.apply(*given, mask=PADDING[:, :, :3]) for layer in layers])
    ours, theirs = run(linen_variables(), x, X, X * 2)
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize(
    ("masked", "theirs"),
    [
        pytest.param(False, linen.dot_product_attention, marks=pytest.mark.slow),
        pytest.param(True, linen.dot_product_attention, marks=pytest.mark.slow),
        pytest.param(False, nnx.dot_product_attention, marks=pytest.mark.slow),
        (True, nnx.dot_product_attention),
    ],
)
def test_bias(theirs, masked):
    """No module passes one, but callers of the function do."""
    q, k, v, bias = operands()
    mask = CAUSAL if masked else None
    runs = [lambda q, k, v, b, f=f: f(q, k, v, b, mask) for f in (flax_attention_fn(), theirs)]
    assert_same(*outputs_and_gradients(runs, q, k, v, bias))
