"""Other keywords that Flax passes, such as precision, dtype and einsums, have an effect or raise an error."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jax_attention import attention_weights_heads, flax_attention_fn
from tests.support.flax_layers import (
    CAUSAL,
    CLOSE,
    LENGTHS,
    RULES,
    X,
    linen_layer,
    linen_variables,
    nnx_layer,
    operands,
)
from tests.support.tiers import slow


def product_precisions(function, *inputs) -> list:
    """Precision of every matrix product in the program and in its nested programs."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in equation.params.values():
                if hasattr(inner, "jaxpr"):
                    yield from walk(inner.jaxpr)

    return list(walk(jax.make_jaxpr(function)(*inputs).jaxpr))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_precision_is_honoured(kind):
    """The precision reaches all products.

    Flax accepted and ignored it (flax#4008); without dropout its NNX function still does.
    """
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)

    def precisions(precision):
        if kind == "linen":
            layer = linen_layer(flax_attention_fn(), precision=precision)
            return product_precisions(lambda x: layer.apply(linen_variables(), x), X)
        return product_precisions(nnx_layer(flax_attention_fn(), precision=precision), X)

    assert precisions(jax.lax.Precision.HIGHEST) == [highest] * 6
    assert precisions("highest") == [highest] * 6
    assert highest not in precisions(None)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("linen", jnp.bfloat16),
        pytest.param("linen", jnp.float16, marks=pytest.mark.slow),
        pytest.param("nnx", jnp.bfloat16, marks=pytest.mark.slow),
        pytest.param("nnx", jnp.float16, marks=pytest.mark.slow),
    ],
)
def test_dtype_is_honoured(kind, dtype):
    """The result has this dtype, and differs from Flax by a few roundings."""
    flax = linen.dot_product_attention if kind == "linen" else nnx.dot_product_attention
    functions = (flax_attention_fn(), flax)
    if kind == "linen":
        layers = [linen_layer(f, dtype=dtype) for f in functions]
        run = jax.jit(lambda *x: [layer.apply(*x, mask=CAUSAL) for layer in layers])
        jax_output, flax_output = run(linen_variables(), X)
    else:
        # Flax multiplies float16 by float16, which XLA rejects on a CPU under jit, but not call by call.
        jax_output, flax_output = (nnx_layer(f, dtype=dtype)(X, mask=CAUSAL) for f in functions)
    assert jax_output.dtype == flax_output.dtype == dtype
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.float32(jax_output), np.float32(flax_output), rtol=tolerance, atol=tolerance)


def test_dtype_of_the_function():
    q, k, v, _ = operands()
    promotions = (None, nnx.nn.dtypes.promote_dtype)

    @jax.jit
    def run(*arrays):
        rounded = (x.astype(jnp.bfloat16) for x in arrays)
        outputs = [flax_attention_fn()(*arrays, dtype=jnp.bfloat16, promote_dtype=promote) for promote in promotions]
        return flax_attention_fn()(*rounded), outputs

    expected, outputs = run(q, k, v)
    for out in outputs:
        assert out.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.float32(out), np.float32(expected))


def sown_weights(layer, **options):
    """The attention weights that an NNX layer sows."""

    @nnx.jit
    def run(layer):
        return nnx.capture(nnx.Intermediate)(lambda layer: layer(X, sow_weights=True, **options))(layer)[1]

    (weights,) = run(layer)["attention_weights"]
    return weights


@pytest.mark.parametrize("rate", [*slow(0.0), 0.5])
def test_sown_weights(rate):
    """Sown weights are those before dropout, as in Flax, and the output does not change (flax#4744)."""
    weights = []
    for linen_fn, nnx_fn in (
        (flax_attention_fn(), flax_attention_fn()),
        (linen.dot_product_attention, nnx.dot_product_attention),
    ):
        options = {"deterministic": False} if rate else {}
        layer = linen_layer(linen_fn, dropout_rate=rate)
        rngs = {"dropout": jax.random.key(0)}
        call = functools.partial(layer.apply, mask=CAUSAL, rngs=rngs, **options)
        call_with_weights = functools.partial(call, sow_weights=True, mutable=["intermediates"])
        run = jax.jit(lambda *x, calls=(call_with_weights, call): [f(*x) for f in calls])
        (out, sown), plain = run(linen_variables(), X)
        np.testing.assert_allclose(out, plain, **CLOSE)
        (from_linen,) = sown["intermediates"]["attention_weights"]
        weights.append((from_linen, sown_weights(nnx_layer(nnx_fn, dropout_rate=rate), mask=CAUSAL, **options)))
    (jax_linen, jax_nnx), (flax_linen, flax_nnx) = weights
    np.testing.assert_allclose(jax_linen, flax_linen, **CLOSE)
    np.testing.assert_allclose(jax_nnx, flax_nnx, **CLOSE)


def test_sown_weights_are_those_of_the_rule():
    rule = RULES["entmax"]
    layer = nnx_layer(flax_attention_fn(**rule))

    @nnx.jit
    def weights(layer):
        return attention_weights_heads(layer.query(X), layer.key(X), layer.value(X), **rule)

    np.testing.assert_allclose(sown_weights(layer), weights(layer), **CLOSE)


@pytest.mark.parametrize("name", ["einsum_dot_general", "qk_attn_weights_einsum", "attn_weights_value_einsum"])
def test_custom_products_are_refused(name):
    q, k, v, _ = operands()
    with pytest.raises(ValueError, match=f"{name}: expected None, got .*Write the product into a score"):
        flax_attention_fn()(q, k, v, **{name: jnp.einsum})


def test_custom_einsum_classes_are_refused_inside_linen():
    classes = {"qk_attn_weights_einsum_cls": lambda: jnp.einsum, "attn_weights_value_einsum_cls": lambda: jnp.einsum}
    with pytest.raises(ValueError, match="qk_attn_weights_einsum: expected None"):
        linen_layer(flax_attention_fn(), **classes).apply(linen_variables(), X)


def test_force_fp32_is_always_on():
    options = {"dtype": jnp.bfloat16}
    layers = [linen_layer(flax_attention_fn(), force_fp32_for_softmax=flag, **options) for flag in (True, False)]
    forced, default = jax.jit(lambda *x: [layer.apply(*x) for layer in layers])(linen_variables(), X)
    np.testing.assert_array_equal(np.float32(forced), np.float32(default))


def test_short_mask_is_refused():
    """The error names the cure (flax#4505)."""
    with pytest.raises(ValueError, match=r"A \[B, S\] padding mask is mask\[:, None, None, :\]"):
        linen_layer(flax_attention_fn()).apply(linen_variables(), X, mask=LENGTHS)
