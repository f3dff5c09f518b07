"""`nn.MultiHeadAttention` against `torch.nn.MultiheadAttention`, forward and every gradient, in float32 and float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import masks, nn, normalizers
from tests.models import small
from tests.support.tiers import slow
from tests.support.tolerances import GRADIENT, PARITY

B, T, S, D, N = 3, 4, 5, 8, 2


def torch_layer(seed: int = 0, dtype: torch.dtype = torch.float32, **options):
    torch.manual_seed(seed)
    layer = torch.nn.MultiheadAttention(D, N, batch_first=True, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return layer


def set_param(param, tensor):
    assert param[...].shape == tuple(tensor.shape), (param[...].shape, tensor.shape)
    param[...] = jnp.asarray(tensor.detach().numpy())


def to_jax(layer, packed: bool):
    """The layer with the parameters of a torch layer, copied without interop, which uses the same mapping."""
    dtype = jnp.float64 if layer.out_proj.weight.dtype == torch.float64 else jnp.float32
    options = {
        "key_size": layer.kdim,
        "value_size": layer.vdim,
        "packed": packed,
        "use_bias": layer.in_proj_bias is not None,
        "bias_kv": layer.bias_k is not None,
        "normalize": normalizers.softmax(plus_one=layer.add_zero_attn),
        "precision": "highest",
        "param_dtype": dtype,
    }
    jax_layer = small.filled(lambda: nn.MultiHeadAttention(N, D, **options, rngs=nnx.Rngs(0)))
    for target, source in param_pairs(layer, jax_layer, packed):
        set_param(target, source)
    return jax_layer


def param_pairs(layer, jax_layer, packed: bool, get=lambda tensor: tensor):
    """Pairs of a jax parameter and the torch parameter (or, through `get`, its gradient) in the same layout."""
    found = [(jax_layer.out.kernel, get(layer.out_proj.weight).T)]
    if layer._qkv_same_embed_dim:
        weights = get(layer.in_proj_weight)
        split = list(weights.chunk(3))
    else:
        split = [get(w) for w in (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)]
    projections = jax_layer.projections
    separate = [] if packed else [projections.query, projections.key, projections.value]
    if packed:
        found.append((projections.joined.kernel, get(layer.in_proj_weight).T))
    else:
        found += [(linear.kernel, weight.T) for linear, weight in zip(separate, split, strict=True)]
    if layer.in_proj_bias is not None:
        bias = get(layer.in_proj_bias)
        found.append((jax_layer.out.bias, get(layer.out_proj.bias)))
        if packed:
            found.append((projections.joined.bias, bias))
        else:
            found += [(linear.bias, b) for linear, b in zip(separate, bias.chunk(3), strict=True)]
    if layer.bias_k is not None:
        found += [
            (jax_layer.bias_k, get(layer.bias_k).reshape(1, N, D // N)),
            (jax_layer.bias_v, get(layer.bias_v).reshape(1, N, D // N)),
        ]
    return found


def inputs(dtype, kdim=D, vdim=D, self_attention=False):
    rng = np.random.default_rng(1)
    query = rng.normal(size=(B, T, D)).astype(dtype)
    if self_attention:
        return query, query, query
    return query, rng.normal(size=(B, S, kdim)).astype(dtype), rng.normal(size=(B, S, vdim)).astype(dtype)


RNG = np.random.default_rng(2)
KEEP_ONE = np.eye(T, S, dtype=bool)
BOOL_2D = (RNG.random((T, S)) < 0.4) & ~KEEP_ONE
BOOL_3D = (RNG.random((B * N, T, S)) < 0.4) & ~KEEP_ONE
FLOAT_2D = np.where(BOOL_2D, -np.inf, RNG.normal(size=(T, S)))
FLOAT_3D = np.where(BOOL_3D, -np.inf, RNG.normal(size=(B * N, T, S)))
PADDING = np.zeros((B, S), bool)
PADDING[0, -1:] = PADDING[1, -2:] = True
FLOAT_PADDING = np.where(PADDING, -np.inf, 0.0)

MASKS = {
    "none": {},
    "bool 2-d": {"attn_mask": BOOL_2D},
    "bool 3-d": {"attn_mask": BOOL_3D},
    "float 2-d": {"attn_mask": FLOAT_2D},
    "float 3-d": {"attn_mask": FLOAT_3D},
    "padding": {"key_padding_mask": PADDING},
    "float both": {"attn_mask": FLOAT_2D, "key_padding_mask": FLOAT_PADDING},
    "bool both": {"attn_mask": np.triu(np.ones((T, S), bool), 2), "key_padding_mask": PADDING},
}
LAYERS = {
    "plain": {},
    "no bias": {"bias": False},
    "kdim vdim": {"kdim": 6, "vdim": 10},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True},
    "bias_kv zero_attn": {"add_bias_kv": True, "add_zero_attn": True},
}
CASES = [("plain", mask, packed) for mask in MASKS for packed in (False, True)]
CASES += [(layer, mask, False) for layer in list(LAYERS)[1:] for mask in ("none", "float both", "bool 3-d")]
QUICK = [("plain", "bool both", True), ("kdim vdim", "bool 3-d", False), ("bias_kv zero_attn", "none", False)]
"""Packed projections, separate ones of other sizes, masks of both ranks, both added keys; float64 tests float masks."""
GRID = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]


def compare(layer_name: str, mask_name: str, packed: bool, dtype: str, tolerance: float):
    options = LAYERS[layer_name]
    layer = torch_layer(dtype=getattr(torch, dtype), **options)
    jax_layer = to_jax(layer, packed)
    arrays = inputs(dtype, options.get("kdim", D), options.get("vdim", D))
    cast = {name: mask if mask.dtype == bool else mask.astype(dtype) for name, mask in MASKS[mask_name].items()}
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    expected, expected_weights = layer(
        *tensors, average_attn_weights=False, **{name: torch.tensor(mask) for name, mask in cast.items()}
    )
    torch.sin(expected).sum().backward()

    converted = masks.from_torch_mha(**cast, num_heads=N)._asdict() if cast else {}

    @jax.jit
    def forward_and_gradients(layer, inputs):
        def loss(layer, inputs):
            out = layer(*inputs, **converted)
            return jnp.sin(out).sum(), out

        (_, out), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, inputs)
        return out, layer.weights(*inputs, **converted), gradients

    out, weights, (layer_gradient, input_gradients) = forward_and_gradients(jax_layer, arrays)
    close = {"rtol": tolerance, "atol": tolerance}
    of_gradients = GRADIENT["float32"] if dtype == "float32" else tolerance  # sums over B T S terms of order one
    gradient_close = {"rtol": of_gradients, "atol": of_gradients}
    np.testing.assert_allclose(out, expected.detach().numpy(), **close)
    # PyTorch also returns the weight of the zero key of `add_zero_attn`, which is no key here.
    key_count = weights.shape[-1]
    np.testing.assert_allclose(weights, expected_weights.detach().numpy()[..., :key_count], **close)
    for tensor, gradient in zip(tensors, input_gradients, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), **gradient_close)
    for gradient, expected in param_pairs(layer, layer_gradient, packed, get=lambda tensor: tensor.grad):
        np.testing.assert_allclose(gradient[...], expected.numpy(), **gradient_close)


@pytest.mark.parametrize(("layer", "mask", "packed"), GRID, ids=lambda x: str(x))
def test_float32(layer, mask, packed):
    compare(layer, mask, packed, "float32", PARITY)


@pytest.mark.parametrize("layer", ["plain", *slow("bias_kv zero_attn")])
def test_float64(layer, x64):
    compare(layer, "float both", False, "float64", 1e-12)


def test_packed_self_attention_is_one_product_and_equals_separate_slices():
    jax_layer = to_jax(torch_layer(), packed=True)
    x = inputs("float32", self_attention=True)[0]
    found, expected = jax.jit(lambda layer, x: (layer(x), layer(x, x, x)))(jax_layer, x)
    np.testing.assert_allclose(found, expected, rtol=PARITY, atol=PARITY)
    products = str(jax.make_jaxpr(lambda m, x: m(x))(jax_layer, x)).count("dot_general")
    assert products == 4  # packed projection, scores, weights times values, output


def test_batch_first_false_is_a_swap_of_axes():
    layer = torch_layer()
    layer.batch_first = False
    x = torch.tensor(inputs("float32")[0])
    expected = layer(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1))[0].transpose(0, 1)
    found = jax.jit(to_jax(layer, True))(x.numpy())
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=PARITY, atol=PARITY)


def test_unbatched_input():
    layer = torch_layer()
    x = torch.tensor(inputs("float32")[0][0])
    found = jax.jit(to_jax(layer, False))(x.numpy())
    np.testing.assert_allclose(found, layer(x, x, x)[0].detach().numpy(), rtol=PARITY, atol=PARITY)


def test_need_weights_averages_over_heads():
    layer = torch_layer()
    arrays = inputs("float32")
    expected = layer(*map(torch.tensor, arrays))[1].detach().numpy()
    found = jax.jit(lambda layer, *x: layer.weights(*x).mean(-3))(to_jax(layer, False), *arrays)
    np.testing.assert_allclose(found, expected, rtol=PARITY, atol=PARITY)
