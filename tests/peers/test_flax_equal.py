"""`flax_attention_fn()` has the results and gradients of Flax inside its multi-head modules, Linen and NNX."""

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
    """Output of each run, and gradients of a nonlinear function of the output by all inputs, in one program."""

    def run_with_gradients(run, *inputs):
        def loss(*inputs):
            out = run(*inputs)
            return jnp.sum(jnp.sin(out)), out

        (_, out), gradients = jax.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True)(*inputs)
        return out, gradients

    return jax.jit(lambda *inputs: [run_with_gradients(run, *inputs) for run in runs])(*inputs)


def assert_same(jax_result, flax_result):
    (out, gradients), (expected, expected_gradients) = jax_result, flax_result
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out, expected, **CLOSE)
    tolerance = GRADIENT["float32"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), gradients, expected_gradients
    )


@pytest.mark.parametrize("flax_function", [linen.dot_product_attention, nnx.dot_product_attention])
def test_every_parameter_of_flax_exists(flax_function):
    """Names and defaults are equal, and up to `module` the order, for calls with positional arguments."""
    jax_parameters, flax_parameters = (inspect.signature(f).parameters for f in (flax_attention_fn(), flax_function))
    assert set(flax_parameters) <= set(jax_parameters)
    assert list(jax_parameters)[:12] == list(flax_parameters)[:12]
    assert list(jax_parameters)[11] == "module"
    # `promote_dtype` defaults to a function in Flax, and to None here, because the core does not import Flax.
    for name in set(flax_parameters) - {"promote_dtype"}:
        assert jax_parameters[name].default == flax_parameters[name].default, name


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
    run = jax.jit(lambda *inputs: [layer.apply(*inputs, mask=PADDING[:, :, :3]) for layer in layers])
    jax_output, flax_output = run(linen_variables(), x, X, X * 2)
    np.testing.assert_allclose(jax_output, flax_output, **CLOSE)


@pytest.mark.parametrize(
    ("masked", "flax_function"),
    [
        pytest.param(False, linen.dot_product_attention, marks=pytest.mark.slow),
        pytest.param(True, linen.dot_product_attention, marks=pytest.mark.slow),
        pytest.param(False, nnx.dot_product_attention, marks=pytest.mark.slow),
        (True, nnx.dot_product_attention),
    ],
)
def test_bias(flax_function, masked):
    """No module of Flax passes a bias, but callers of the function may."""
    q, k, v, bias = operands()
    mask = CAUSAL if masked else None
    runs = [lambda q, k, v, b, f=f: f(q, k, v, b, mask) for f in (flax_attention_fn(), flax_function)]
    assert_same(*outputs_and_gradients(runs, q, k, v, bias))
