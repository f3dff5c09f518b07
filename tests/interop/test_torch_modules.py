"""Layers of `torch.nn` and ours: equal forward and backward, and the same bits there and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import interop, nn
from tests.interop.converted import bits_of, check_equal, check_round_trip, inputs, randomized
from tests.models import small
from tests.support.tiers import slow, slow_except, slow_except_every
from tests.support.tolerances import PARITY

T, S, D, N = 4, 5, 15, 3


def one(module, x):
    return (module(x),)


# --- Linear, norms, embedding ----------------------------------------------------------------------------------------

LAYERS = {
    "linear": lambda **o: torch.nn.Linear(D, 7, **o),
    "linear without bias": lambda **o: torch.nn.Linear(D, 1, bias=False, **o),
    "layer norm": lambda **o: torch.nn.LayerNorm(D, **o),
    "layer norm without bias": lambda **o: torch.nn.LayerNorm((D,), eps=0.1, bias=False, **o),
    "rms norm": lambda **o: torch.nn.RMSNorm(D, **o),
    "rms norm with eps": lambda **o: torch.nn.RMSNorm(D, eps=0.1, **o),
}


def check_layer(name, dtype):
    module = randomized(LAYERS[name](dtype=getattr(torch, dtype)))
    check_round_trip(module)
    return check_equal(module, inputs(dtype, (2, T, D)), one, one, dtype)


@pytest.mark.parametrize("name", slow_except_every(2, LAYERS))
def test_layers_float32(name):
    check_layer(name, "float32")


@pytest.mark.parametrize("name", ["linear", *slow("layer norm", "rms norm")])
def test_layers_float64(name, x64):
    check_layer(name, "float64")


@pytest.mark.parametrize("dtype", [*slow("float32", "float64"), "bfloat16"])
def test_rms_norm_without_eps_takes_that_of_the_dtype_of_the_sum(dtype, x64):
    module = torch.nn.RMSNorm(D, dtype=getattr(torch, dtype))
    layer = interop.from_torch(module)
    assert layer.epsilon == torch.finfo(torch.float64 if dtype == "float64" else torch.float32).eps
    small = torch.randn(3, D).to(module.weight.dtype) * 1e-3
    theirs = module(small).detach().double().numpy()
    close = {"float32": PARITY, "float64": 1e-12, "bfloat16": 2**-7}[dtype]
    np.testing.assert_allclose(np.float64(layer(jnp.asarray(interop.tensors.to_numpy(small)))), theirs, close, close)
    assert interop.to_torch(layer).eps == layer.epsilon


@pytest.mark.parametrize("dtype", ["float32", *slow("float64")])
def test_embedding(dtype, x64):
    module = randomized(torch.nn.Embedding(11, D, dtype=getattr(torch, dtype)))
    layer = check_round_trip(module)
    tokens = np.array([[3, 0, 10], [3, 3, 1]])
    expected = module(torch.tensor(tokens))
    expected.sin().sum().backward()
    assert np.array_equal(layer(tokens), expected.detach().numpy())
    gradient = jax.jit(jax.grad(lambda layer: jnp.sum(jnp.sin(layer(tokens)))))(layer)
    np.testing.assert_allclose(interop.to_state_dict(gradient)["weight"], module.weight.grad, rtol=PARITY, atol=PARITY)


# --- Several heads ---------------------------------------------------------------------------------------------------

HEADS = {
    "packed": {},
    "packed, no bias": {"bias": False},
    "key and value sizes": {"kdim": 6, "vdim": 10},
    "a value size alone, no bias": {"vdim": 4, "bias": False},
    "sizes and extra keys": {"kdim": 7, "add_bias_kv": True, "add_zero_attn": True},
    "extra key": {"add_bias_kv": True},
    "zero key": {"add_zero_attn": True},
    "sequence first": {"batch_first": False},
}


def check_heads(name, dtype, batch=2):
    options = {"batch_first": True, **HEADS[name]}
    module = randomized(torch.nn.MultiheadAttention(D, N, dtype=getattr(torch, dtype), **options))
    check_round_trip(module)
    arrays = inputs(dtype, (batch, T, D), (batch, S, module.kdim), (batch, S, module.vdim))

    def theirs(module, *tensors):
        if module.batch_first:
            return (module(*tensors)[0],)
        return (module(*(x.swapaxes(0, 1) for x in tensors))[0].swapaxes(0, 1),)

    return check_equal(module, arrays, theirs, lambda layer, *x: (layer(*x),), dtype)


@pytest.mark.parametrize("name", slow_except(("sizes and extra keys", "sequence first"), HEADS))
def test_heads_float32(name):
    check_heads(name, "float32", batch=1 if name == "extra key" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["packed", "sizes and extra keys"])
def test_heads_float64(name, x64):
    check_heads(name, "float64")


def test_separate_kernels_of_ours_are_packed_for_theirs():
    layer = small.filled(lambda: nn.MultiHeadAttention(N, D, rngs=nnx.Rngs(0)))
    packed = small.filled(lambda: nn.MultiHeadAttention(N, D, packed=True, rngs=nnx.Rngs(1)))
    state_dict = interop.to_state_dict(layer)
    assert sorted(state_dict) == ["in_proj_bias", "in_proj_weight", "out_proj.bias", "out_proj.weight"]
    assert bits_of(interop.to_state_dict(interop.from_state_dict(packed, state_dict))) == bits_of(state_dict)
    module = interop.to_torch(layer)
    (x,) = inputs("float32", (2, T, D))
    (theirs, _), ours = module(*[torch.tensor(x)] * 3), jax.jit(layer)(x)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=PARITY, atol=PARITY)


def test_dropout_of_theirs_is_left_behind():
    module = torch.nn.MultiheadAttention(D, N, dropout=0.9, batch_first=True)
    (x,) = inputs("float32", (2, T, D))
    ours, theirs = jax.jit(interop.from_torch(module.train()))(x), module.eval()(*[torch.tensor(x)] * 3)[0]
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=PARITY, atol=PARITY)


# --- The tutorial's layer --------------------------------------------------------------------------------------------


class TutorialAttn(torch.nn.Module):
    """Bahdanau's name, Luong's location rule: one softmax over a linear layer of two joined vectors."""

    def __init__(self, query_size, key_size, rows, value_size, output_size, **options):
        super().__init__()
        self.attn = torch.nn.Linear(query_size + key_size, rows, **options)
        self.attn_combine = torch.nn.Linear(query_size + value_size, output_size, **options)

    def forward(self, query, key, value):
        weights = torch.softmax(self.attn(torch.cat([query, key], -1)), -1)
        return self.attn_combine(torch.cat([query, weights @ value], -1))


@pytest.mark.parametrize("dtype", ["float32", *slow("float64")])
def test_tutorial_layer(dtype, x64):
    module = randomized(TutorialAttn(3, 4, S, 7, 2, dtype=getattr(torch, dtype)))
    layer = small.filled(lambda: nn.Attn(3, 4, S, 7, 2, rngs=nnx.Rngs(0)))
    converted = interop.from_state_dict(layer, module.state_dict())
    assert bits_of(interop.to_state_dict(converted)) == bits_of(module.state_dict())
    call = lambda layer, *x: (layer(*x),)  # noqa: E731
    check_equal(module, inputs(dtype, (2, T, 3), (2, T, 4), (2, S, 7)), call, call, dtype, converted)


# --- Numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_bit_pattern_survives(dtype):
    """All 65536 numbers of 16 bits, each NaN with what it carries."""
    integers = torch.arange(-(2**15), 2**15).to(torch.int16)
    numbers = integers.view(dtype) if dtype.itemsize == 2 else torch.randn(2**16).to(dtype)
    module = torch.nn.Embedding(256, 256, dtype=dtype)
    module.load_state_dict({"weight": numbers.reshape(256, 256)})
    layer = check_round_trip(module)
    assert str(layer.embedding.dtype) == str(dtype).removeprefix("torch.")


def test_memory_is_not_shared():
    module = torch.nn.Linear(64, 64)
    layer = interop.from_torch(module)
    before, back = np.array(layer.kernel[...]), interop.to_state_dict(layer)
    with torch.no_grad():
        module.weight.zero_()
        back["weight"].zero_()
    assert before.any()
    assert np.array_equal(layer.kernel[...], before)


def test_state_dict_may_be_numpy_and_the_layer_abstract():
    module = torch.nn.Linear(D, 7)
    abstract = jax.eval_shape(lambda: nn.Linear(D, 7, rngs=nnx.Rngs(0)))
    layer = interop.from_state_dict(abstract, {name: x.numpy() for name, x in module.state_dict().items()})
    assert bits_of(interop.to_state_dict(layer)) == bits_of(module.state_dict())


def test_to_torch_draws_no_random_numbers_and_can_be_trained():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    module = interop.to_torch(small.filled(lambda: nn.GRU(3, 5, rngs=nnx.Rngs(0))))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad for parameter in module.parameters())
    module(torch.ones(1, 2, 3))[0].sum().backward()
    assert module.weight_hh_l0.grad.shape == (15, 5)


def test_a_subclass_with_the_same_forward_is_converted():
    class Named(torch.nn.Linear):
        pass

    assert bits_of(interop.to_state_dict(interop.from_torch(Named(2, 3)))).keys() == {"weight", "bias"}
