"""`nn.Linear`, `nn.FeedForward`, and features of attention layers for language models: norms on heads, step_weights."""

from __future__ import annotations

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import cache, masks, mods, nn, normalizers, positions
from tests.models import small
from tests.support.arrays import normal
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD, GRADIENT, PARITY

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
CLOSE_GRADIENT = {"rtol": GRADIENT["float32"], "atol": GRADIENT["float32"]}
X = normal(0, 2, 3, 4, 5)


def linear(**options):
    """A layer with random parameters, made without compiling its initialisation."""
    return small.filled(lambda: nn.Linear(5, 7, **options, rngs=nnx.Rngs(0)))


def products(jaxpr):
    """The equations that multiply matrices, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


# --- Linear ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
def test_linear_is_flax_linear_with_any_batch_dimensions(use_bias):
    layer, flax_layer = (make(5, 7, use_bias=use_bias, rngs=nnx.Rngs(0)) for make in (nn.Linear, nnx.Linear))
    assert np.array_equal(layer.kernel[...], flax_layer.kernel[...])

    def loss(layer, x):
        return jnp.sum(jnp.sin(layer(x)))

    inputs = [np.asarray(X)[index] for index in ((), 0, (0, 0), (0, 0, 0), np.s_[:0], np.s_[:, :0])]
    run = jax.jit(lambda *layers: [[layer(x) for x in inputs] for layer in layers])
    for x, found, expected in zip(inputs, *run(layer, flax_layer), strict=True):
        assert found.shape == (*x.shape[:-1], 7)
        np.testing.assert_allclose(found, expected, **CLOSE)
    found, expected = jax.jit(lambda *layers: [jax.grad(loss, (0, 1))(layer, X) for layer in layers])(layer, flax_layer)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE_GRADIENT)


def test_every_product_of_linear_has_two_matrices_forward_and_backward():
    layer = linear()
    jaxpr = jax.make_jaxpr(jax.grad(lambda layer, x: (layer(x) ** 2).sum(), (0, 1)))(layer, X)
    found = list(products(jaxpr.jaxpr))
    assert len(found) == 3
    assert {variable.aval.ndim for equation in found for variable in equation.invars} == {2}


def test_linear_has_every_derivative():
    """Forward mode, second order in both orders of modes, and vmap of a gradient, against Flax."""
    layers = [small.filled(lambda make=make: make(5, 2, rngs=nnx.Rngs(0))) for make in (nn.Linear, nnx.Linear)]
    x = X[0, 0]

    def derivatives(layer):
        def loss(kernel, x):
            copy = jax.tree.map(lambda y: y, layer)
            copy.kernel[...] = kernel
            return jnp.sum(jnp.sin(copy(x)))

        kernel = layer.kernel[...]
        return (
            jax.jvp(loss, (kernel, x), (jnp.cos(kernel), jnp.cos(x))),
            jax.jacfwd(jax.jacrev(loss))(kernel, x),
            jax.jacrev(jax.jacfwd(loss))(kernel, x),
            jax.vmap(jax.grad(loss), (None, 0))(kernel, X[0]),
        )

    found, expected = jax.jit(lambda *layers: [derivatives(layer) for layer in layers])(*layers)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE_GRADIENT)


def test_columns_of_linear_are_columns_of_its_output():
    layer = linear()
    layer.bias[...] = jnp.asarray(np.arange(7, dtype=np.float32))
    found, whole = jax.jit(lambda layer: (layer.columns(X, slice(2, 5)), layer(X)))(layer)
    np.testing.assert_allclose(found, whole[..., 2:5], **CLOSE)


def test_linear_computes_in_its_dtype_and_precision():
    layer = linear(dtype=jnp.bfloat16, precision="highest")
    whole, columns = jax.eval_shape(lambda layer: (layer(X), layer.columns(X, slice(2))), layer)
    assert whole.dtype == columns.dtype == jnp.bfloat16
    assert layer.kernel[...].dtype == jnp.float32
    (product,) = products(jax.make_jaxpr(layer)(X).jaxpr)
    assert set(product.params["precision"]) == {jax.lax.Precision.HIGHEST}


def test_linear_refuses_other_sizes():
    layer = linear()
    for call in (layer, lambda x: layer.columns(x, slice(2))):
        with pytest.raises(ValueError, match=r"^x: expected 5 features in the last axis, got shape \(5, 6\)\.$"):
            call(np.ones((5, 6), np.float32))


# --- FeedForward -----------------------------------------------------------------------------------------------------

F = torch.nn.functional
ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x) ** 2,
    "silu": F.silu,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("activation", slow_except(("gelu", "gelu_tanh", "relu2", "swiglu"), ACTIVATIONS))
def test_feed_forward_against_pytorch(activation):
    """Every activation is PyTorch's: the tanh and erf forms of GELU differ by 5e-4 (spd#730)."""
    layer = small.filled(lambda: nn.FeedForward(5, 8, activation=activation, rngs=nnx.Rngs(0)))
    torch_params = {
        name: [torch.from_numpy(np.array(x[...])) for x in (part.kernel, part.bias)] for name, part in parts(layer)
    }
    x = torch.from_numpy(np.array(X))
    apply = lambda name, x: x @ torch_params[name][0] + torch_params[name][1]  # noqa: E731
    if activation in ("swiglu", "geglu", "geglu_tanh"):
        hidden = ACTIVATIONS[activation](apply("gate", x)) * apply("up", x)
    else:
        assert layer.gate is None
        hidden = ACTIVATIONS[activation](apply("up", x))
    found = jax.jit(lambda layer: layer(X))(layer)
    np.testing.assert_allclose(found, apply("down", hidden), rtol=PARITY, atol=PARITY)


def parts(layer):
    named = {"gate": layer.gate, "up": layer.up, "down": layer.down}
    return [(name, part) for name, part in named.items() if part is not None]


def test_feed_forward_without_biases_and_with_options():
    layer = nn.FeedForward(5, 8, activation="swiglu", use_bias=False, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert [x.shape for x in jax.tree.leaves(layer)] == [(8, 5), (5, 8), (5, 8)]
    assert jax.eval_shape(layer, X).dtype == jnp.bfloat16
    assert not np.array_equal(layer.gate.kernel[...], layer.up.kernel[...])


def test_feed_forward_refuses_unknown_names():
    with pytest.raises(ValueError, match=r"^activation: expected one of gelu, gelu_tanh, relu, .*, got 'swish'\.$"):
        nn.FeedForward(5, 8, activation="swish", rngs=nnx.Rngs(0))


# --- Multi-head attention --------------------------------------------------------------------------------------------

ROWS = normal(1, 2, 5, 16)


def layer_with_norms(**options):
    """A layer with norms on heads, whose scales are not 1."""
    make = lambda size: nnx.RMSNorm(size, rngs=nnx.Rngs(3))  # noqa: E731
    options |= {"kv_heads": 2, "head_norm": make}
    layer = small.filled(lambda: nn.MultiHeadAttention(4, 16, **options, rngs=nnx.Rngs(0)))
    layer.query_norm.scale[...] = jnp.asarray([0.5, 1.5, 1.0, 2.0], jnp.float32)
    layer.key_norm.scale[...] = jnp.asarray([1.0, 0.3, 0.7, 1.2], jnp.float32)
    return layer


def test_head_norm_acts_on_queries_and_keys_before_the_rotation():
    """Norms come before the rotation: the scale of a feature is not rotated with it."""
    layer = layer_with_norms(rope=positions.rotary(), mask=masks.causal())
    norm = lambda x, scale: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.asarray(scale[...])  # noqa: E731

    def project(part):
        return (np.asarray(ROWS) @ np.asarray(part.kernel[...]) + np.asarray(part.bias[...])).reshape(2, 5, -1, 4)

    heads = [project(part) for part in (layer.projections.query, layer.projections.key)]
    q, k = (norm(x, module.scale) for x, module in zip(heads, (layer.query_norm, layer.key_norm), strict=True))
    rotate = jax.jit(lambda *heads: [positions.rotary().heads(x, np.arange(5)) for x in heads])
    q, k = map(np.asarray, rotate(q, k))
    z = np.einsum("btnh,bsnh->bnts", q, np.repeat(k, 2, axis=2)) / 2
    z = np.where(np.tril(np.ones((5, 5), bool)), z, -np.inf)
    expected = np.exp(z - z.max(-1, keepdims=True))
    found = jax.jit(lambda layer: layer.weights(ROWS))(layer)
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), **CLOSE)


@pytest.mark.parametrize("bias_kv", [*slow(False), True])
def test_step_and_its_weights_equal_the_full_call(bias_kv):
    """Norms on heads and mods of the call also act with a cache, whose free slots have weight 0."""
    layer = layer_with_norms(
        rope=positions.rotary(), mask=masks.causal(), mods=(mods.temperature(2.0),), bias_kv=bias_kv
    )
    call_mods = (mods.alibi(positions.alibi_slopes(4)),)

    @jax.jit
    def run(layer):
        first, memory = layer.step(ROWS[:, :3], cache.create(7, 2, 4, batch=(2,)), mods=call_mods)
        weights = layer.step_weights(ROWS[:, 3:], memory, mods=call_mods)
        second, after = layer.step(ROWS[:, 3:], memory, mods=call_mods)
        output = jnp.concatenate([first, second], 1)
        return output, layer(ROWS, mods=call_mods), weights, layer.weights(ROWS, mods=call_mods), memory, after

    output, expected, weights, full, memory, after = run(layer)
    np.testing.assert_allclose(output, expected, **CLOSE)
    full = full[..., 3:, :]
    assert weights.shape == (2, 4, 2, 7 + bias_kv)
    np.testing.assert_allclose(weights[..., :5], full[..., :5], **CLOSE)
    np.testing.assert_array_equal(weights[..., 5:7], 0)
    if bias_kv:
        np.testing.assert_allclose(weights[..., 7], full[..., 5], **CLOSE)
    assert (int(memory.length), int(after.length)) == (3, 5)


def test_no_rows_at_all():
    layer = layer_with_norms(mask=masks.causal())
    no_rows, no_examples = jax.jit(lambda layer: (layer(ROWS[:, :0]), layer(ROWS[:0])))(layer)
    assert no_rows.shape == (2, 0, 16)
    assert no_examples.shape == (0, 5, 16)


def test_numbers_in_a_constant_rule_do_not_widen_float32(x64):
    """A Python number stored as a float64 array would silently promote every score in x64 mode."""
    layer = layer_with_norms(
        mods=(mods.soft_cap(3.0), mods.temperature(2.0)), normalize=normalizers.sigmoid(-1.0), mask=masks.causal()
    )
    jaxpr = jax.make_jaxpr(lambda x: layer(x))(jnp.asarray(ROWS, jnp.float32))
    text = str(jaxpr)
    assert "f32[" in text
    assert "f64[2" not in text, "no array of the batch is float64"


def test_constants_are_equal_by_content():
    """A rule of the same shapes with other numbers is another program; Python numbers compare by number and type."""
    traces = []

    @jax.jit
    def call(layer):
        traces.append(layer.num_heads)
        return jnp.zeros(())

    for slopes in (1.0, 1.0, 2.0):
        call(layer_with_norms(mods=(mods.alibi(slopes * positions.alibi_slopes(4)), mods.soft_cap(3.0))))
    assert len(traces) == 2
    for cap in (3.0, 4.0, 4.0):
        call(layer_with_norms(mods=(mods.alibi(positions.alibi_slopes(4)), mods.soft_cap(cap))))
    assert len(traces) == 3
