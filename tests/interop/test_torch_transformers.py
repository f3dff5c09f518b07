"""Converted Transformers of `torch.nn`: equal forward and backward, and the same bits after a round trip."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import interop, masks, models, nn
from jax_attention.cache import EMPTY
from tests.models import small
from tests.support.tolerances import PARITY
from tests.support.torch_parity import check_equal, check_round_trip, inputs, randomized

S, T, D, N, F = 5, 4, 15, 3, 11
SIZES = {"d_model": D, "nhead": N, "dim_feedforward": F, "dropout": 0.0, "batch_first": True}
OPTIONS = {
    "post-norm, ReLU": {},
    "pre-norm, GELU": {"norm_first": True, "activation": "gelu", "layer_norm_eps": 1e-3},
    "no biases, SiLU": {"bias": False, "activation": torch.nn.functional.silu},
    "GELU by tanh": {"norm_first": True, "activation": torch.nn.GELU(approximate="tanh")},
}
CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask(T)


def encoder_layer(**options):
    return torch.nn.TransformerEncoderLayer(**SIZES, **options)


def decoder_layer(**options):
    return torch.nn.TransformerDecoderLayer(**SIZES, **options)


def norm_like(options):
    eps, bias = options.get("layer_norm_eps", 1e-5), options.get("bias", True)
    return torch.nn.LayerNorm(D, eps, bias=bias, **{k: x for k, x in options.items() if k == "dtype"})


def encoder(depth=3, norm=True, **options):
    norm = norm_like(options) if norm else None
    return torch.nn.TransformerEncoder(encoder_layer(**options), depth, norm, enable_nested_tensor=False)


def decoder(depth=2, norm=True, **options):
    return torch.nn.TransformerDecoder(decoder_layer(**options), depth, norm_like(options) if norm else None)


def both(depths=(2, 3), **options):
    stacks = {"custom_encoder": encoder(depths[0], **options), "custom_decoder": decoder(depths[1], **options)}
    return torch.nn.Transformer(D, N, batch_first=True, **stacks)


def torch_source(module, x, y):
    return (module(x),)


def jax_source(stack, x, y):
    return (stack(x),)


def torch_target(module, x, y):
    return (module(y, x, tgt_mask=CAUSAL.to(x.dtype)),)


def jax_target(stack, x, y):
    return (stack(y, x, mask=masks.causal()),)


MODULES = {
    "encoder layer": (encoder_layer, torch_source, jax_source, models.TransformerLayer),
    "encoder": (encoder, torch_source, jax_source, models.TransformerStack),
    "decoder layer": (decoder_layer, torch_target, jax_target, models.TransformerLayer),
    "decoder": (decoder, torch_target, jax_target, models.TransformerStack),
    "both": (
        both,
        lambda module, x, y: (module(x, y, tgt_mask=CAUSAL.to(x.dtype)),),
        lambda pair, x, y: (pair(x, y, mask=masks.causal()),),
        models.EncoderDecoderStack,
    ),
}


def check(name, dtype, **options):
    make, run_torch, run_jax, cls = MODULES[name]
    module = randomized(make(dtype=getattr(torch, dtype), **options), scale=0.25)
    assert type(check_round_trip(module)) is cls
    arrays = inputs(dtype, (2, S, D), (2, T, D))
    if run_torch is torch_source:
        source = arrays[:1]
        return check_equal(module, source, lambda m, x: run_torch(m, x, None), lambda m, x: run_jax(m, x, None), dtype)
    return check_equal(module, arrays, run_torch, run_jax, dtype)


SHALLOW = {"depths": (1, 2)}
QUICK = {("encoder layer", "no biases, SiLU")}
"""Layers and stacks are parts of `both`; padding of a source is tested with a post-norm model."""
GRID = [
    pytest.param(name, options, marks=() if (name, options) in QUICK else pytest.mark.slow)
    for name in MODULES
    for options in OPTIONS
]
GRID.append(("both", "pre-norm, GELU, shallow"))


@pytest.mark.parametrize(("name", "options"), GRID)
def test_transformers_float32(name, options):
    shallow = {"pre-norm, GELU, shallow": OPTIONS["pre-norm, GELU"] | SHALLOW}
    check(name, "float32", **(OPTIONS | shallow)[options])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_transformers_float64(name, x64):
    check(name, "float64", norm_first=True)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_a_stack_of_one_layer_without_a_last_norm(make):
    """One layer in a stack stays a stack: its names differ from those of the layer alone."""
    stack = check_round_trip(randomized(make(1, norm=False)))
    assert type(stack) is models.TransformerStack
    assert stack.final_norm is None


def test_padding_of_the_source():
    module = randomized(both(**SHALLOW), scale=0.25).eval()
    x, y = inputs("float32", (2, S, D), (2, T, D))
    is_padding = np.arange(S) >= np.array([[S], [3]])
    padding = torch.tensor(is_padding)
    with torch.no_grad():
        expected = module(
            torch.tensor(x), torch.tensor(y), src_key_padding_mask=padding, memory_key_padding_mask=padding
        )
    positions = np.where(is_padding, EMPTY, np.arange(S))
    run = jax.jit(lambda pair, *arrays: pair(*arrays, source_positions=positions))
    actual = run(interop.from_torch(module), x, y)
    np.testing.assert_allclose(actual, expected, rtol=PARITY, atol=PARITY)


class OverriddenForward(torch.nn.TransformerEncoderLayer):
    """A layer that computes something else."""

    def forward(self, *args, **options):
        return super().forward(*args, **options) + 1


class OverriddenBlock(torch.nn.TransformerEncoderLayer):
    """The documented way to change a layer: its forward stays."""

    def _ff_block(self, x):
        return super()._ff_block(x) + 1


def with_attention(name, **options):
    """A decoder layer with an attention that its constructor would not make."""
    layer = decoder_layer()
    setattr(layer, name, torch.nn.MultiheadAttention(D, **({"num_heads": N} | options)))
    return layer


def uneven():
    module = encoder()
    module.layers[1] = encoder_layer(norm_first=True)
    return module


BAD_MODULES = {
    "another forward": (lambda: OverriddenForward(**SIZES), "module: expected one of torch.nn"),
    "another forward within": (
        lambda: torch.nn.TransformerEncoder(OverriddenForward(**SIZES), 1, enable_nested_tensor=False),
        "layers TransformerEncoderLayer or TransformerDecoderLayer with PyTorch's forward, got OverriddenForward",
    ),
    "another block": (lambda: OverriddenBlock(**SIZES), "got one with an overridden _ff_block"),
    "other heads": (lambda: with_attention("multihead_attn", num_heads=5), "attentions of different heads"),
    "a zero key": (lambda: with_attention("self_attn", add_zero_attn=True), "got one with add_zero_attn"),
    "a key more": (lambda: with_attention("multihead_attn", add_bias_kv=True), "got one with add_bias_kv"),
    "key sizes": (lambda: with_attention("multihead_attn", kdim=7), "got one with key or value sizes"),
    "a custom encoder": (
        lambda: torch.nn.Transformer(D, N, custom_encoder=torch.nn.Linear(D, D)),
        "expected TransformerEncoder or TransformerDecoder with PyTorch's forward, got Linear",
    ),
    "activation": (lambda: encoder_layer(activation=torch.tanh), "activation: expected ReLU, GELU or SiLU, got"),
    "layers of two kinds": (uneven, "all of them with the same options, got others"),
    "another norm": (
        lambda: torch.nn.TransformerEncoder(encoder_layer(), 1, torch.nn.RMSNorm(D), enable_nested_tensor=False),
        "expected a last norm like those of the layers, or none, got RMSNorm",
    ),
}


@pytest.mark.parametrize("name", BAD_MODULES)
def test_modules_without_a_counterpart(name):
    make, message = BAD_MODULES[name]
    with pytest.raises((ValueError, TypeError), match=message):
        interop.from_torch(make())


PLAIN = models.LMConfig(vocab_size=1, width=6, depth=2, num_heads=2, mask=None, position="none", activation="relu")
BAD_STACKS = {
    "a mask": ({"mask": masks.causal()}, "mask=causal"),
    "grouped heads": ({"kv_heads": 1}, "kv_heads=1"),
    "RMS norms": ({"norm": "rms"}, r"missing: .*attention_norm\.bias"),
    "a gate": ({"activation": "swiglu"}, r"not in PyTorch: .*gate\.bias"),
    "sandwich": ({"norm_place": "sandwich"}, r"not in PyTorch: .*attention_after\.bias"),
    "a cap": ({"score_cap": 2.0}, "score_cap=2.0"),
    "windows": ({"windows": (2,)}, "windows="),
    "a bias in some places": ({"use_bias": ("qkv",)}, r"missing: .*out\.bias"),
    "stacked": ({"scan": True}, "scan=True"),
    "a wide memory": ({"memory_size": 7}, "memory_size=7"),
}


@pytest.mark.parametrize("name", BAD_STACKS)
def test_stacks_that_pytorch_lacks(name):
    changes, message = BAD_STACKS[name]
    config = dataclasses.replace(PLAIN, **changes)
    stack = small.filled(lambda: models.TransformerStack(config, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=message):
        interop.to_torch(stack)


def test_a_plain_stack_converts_to_pytorch():
    stack = small.filled(lambda: models.TransformerStack(PLAIN, rngs=nnx.Rngs(0)))
    (x,) = inputs("float32", (2, S, 6))
    module = interop.to_torch(stack).eval()
    jax_output = jax.jit(lambda stack, x: stack(x))(stack, x)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.tensor(x)), jax_output, rtol=PARITY, atol=PARITY)


@pytest.mark.slow
def test_other_layers_still_convert():
    assert isinstance(interop.from_torch(torch.nn.MultiheadAttention(6, 2)), nn.MultiHeadAttention)
    assert jax.tree.leaves(interop.from_torch(torch.nn.Linear(2, 2)))
