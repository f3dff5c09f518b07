"""Errors of layers that cannot be converted name the layer, what was expected, what came, and the cure."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import interop, mods, nn, normalizers, positions
from tests.models import small
from tests.support.torch_parity import randomized


class OverriddenForward(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def heads(**options):
    """Made without compiling its initialisation."""
    return small.filled(lambda: nn.MultiHeadAttention(3, 15, **options, rngs=nnx.Rngs(0)))


def linear(**numbers):
    return interop.from_state_dict(small.filled(lambda: nn.Linear(2, 3, rngs=nnx.Rngs(0))), numbers)


def array(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


NO_SUCH_LAYER = {
    "unsupported module": (
        lambda: interop.from_torch(torch.nn.Conv1d(1, 1, 1)),
        r"module: expected one of torch.nn: .*MultiheadAttention, GRU, LSTM, Linear, LayerNorm, RMSNorm, Embedding, "
        r".*got Conv1d. Convert its parts",
    ),
    "another forward": (
        lambda: interop.from_torch(OverriddenForward(1, 1)),
        r"a subclass with the same forward, got OverriddenForward",
    ),
    "no module": (lambda: interop.from_torch({"weight": array(1, 1)}), r"module: expected one of .*got dict"),
    "unsupported layer": (
        lambda: interop.to_state_dict(nn.FeedForward(2, 3, rngs=nnx.Rngs(0))),
        r"layer: expected one of .*MultiHeadAttention, Attn, GRU, .*got FeedForward. Convert the layers",
    ),
    "no module like it": (
        lambda: interop.to_torch(nn.Attn(2, 2, 3, 4, 5, rngs=nnx.Rngs(0))),
        r"layer: expected one that torch.nn has, got Attn. Use to_state_dict",
    ),
    "integers": (
        lambda: linear(weight=array(3, 2, dtype="int8"), bias=array(3)),
        r"kernel: expected floating-point numbers, got int8\[2,3\]. Turn quantised",
    ),
}
NO_SUCH_OPTION = {
    "no scale": (
        lambda: interop.from_torch(torch.nn.LayerNorm(3, elementwise_affine=False)),
        r"LayerNorm: expected .* got one with elementwise_affine=False. .*use_scale=False",
    ),
    "no scale of RMSNorm": (
        lambda: interop.from_torch(torch.nn.RMSNorm(3, elementwise_affine=False)),
        r"RMSNorm: expected .* got one with elementwise_affine=False",
    ),
    "several axes": (
        lambda: interop.from_torch(torch.nn.LayerNorm((3, 4))),
        r"got one with a normalized_shape of several axes. Norms here are over the last axis",
    ),
    "padding_idx": (
        lambda: interop.from_torch(torch.nn.Embedding(3, 4, padding_idx=0, max_norm=1.0)),
        r"Embedding: expected .* got one with padding_idx, max_norm. .*padding_idx = None",
    ),
    "float64": (
        lambda: interop.from_torch(torch.nn.Linear(2, 3, dtype=torch.float64)),
        r"weight: expected at most 32 bits, as JAX drops the others, got float64\[3,2\]. .*jax_enable_x64",
    ),
    "shared keys": (
        lambda: interop.to_state_dict(heads(kv_heads=1)),
        r"MultiHeadAttention: expected .* got one with kv_heads=1 for 3 heads. .*as many key heads",
    ),
    "head and output size": (
        lambda: interop.to_state_dict(heads(head_size=4, output_size=2)),
        r"got one with head_size=4, output_size=2",
    ),
    "head norm": (
        lambda: interop.to_state_dict(heads(head_norm=lambda size: nnx.RMSNorm(size, rngs=nnx.Rngs(0)))),
        r"got one with head_norm",
    ),
    "rope and mods": (
        lambda: interop.to_torch(heads(rope=positions.rotary(), mods=(mods.soft_cap(2.0),))),
        r"got one with rope, mods. In PyTorch masks and mods belong to the call; to_state_dict",
    ),
    "another normalizer": (
        lambda: interop.to_torch(heads(normalize=normalizers.sigmoid())),
        r"got one with normalize=sigmoid",
    ),
    "a trained rule": (
        lambda: interop.to_state_dict(heads(mods=(nn.LearnedPart(mods.alibi(positions.alibi_slopes(3))),))),
        r"layer: expected the parameters of torch.nn.MultiheadAttention, got not in PyTorch: mods.0.parameters.0. Make",
    ),
    "a norm without scale": (
        lambda: interop.to_state_dict(nnx.LayerNorm(3, use_scale=False, use_bias=False, rngs=nnx.Rngs(0))),
        r"layer: expected the parameters of torch.nn.LayerNorm, got missing: scale. Make",
    ),
    "another score": (
        lambda: interop.to_state_dict(
            nn.Attn(2, 2, 3, 4, 5, score=nn.General(2, 2, rngs=nnx.Rngs(0)), join=False, rngs=nnx.Rngs(0))
        ),
        r"layer: expected an nn.Attn as it is by default, .*got score General and join=False",
    ),
}
OTHER_NAMES = {
    "missing and left over": (
        lambda: linear(weight=array(3, 2), beta=array(3)),
        r"state_dict: expected the arrays of torch.nn.Linear, got missing: bias; unused: beta\.",
    ),
    "a prefix": (
        lambda: interop.from_state_dict(
            nn.GRU(1, 1, use_bias=False, rngs=nnx.Rngs(0)), {"rnn.weight_ih_l0": array(3, 1)}
        ),
        r"got missing: weight_hh_l0, weight_ih_l0; unused: rnn.weight_ih_l0",
    ),
    "shape": (
        lambda: linear(weight=array(2, 3), bias=array(3)),
        r"in the sizes of the layer, got wrong shape: kernel: expected float32\[2,3\], got float32\[3,2\]",
    ),
    "shape of three in one": (
        lambda: interop.from_state_dict(
            heads(use_bias=False), {"in_proj_weight": array(12, 15), "out_proj.weight": array(15, 15)}
        ),
        r"wrong shape: projections.*",
    ),
    "shape of extra keys": (
        lambda: interop.from_state_dict(
            heads(use_bias=False, bias_kv=True),
            {
                "in_proj_weight": array(45, 15),
                "out_proj.weight": array(15, 15),
                "bias_k": array(15),
                "bias_v": array(1, 1, 15),
            },
        ),
        r"wrong shape: bias_k: expected float32\[1,3,5\], got float32\[15\]",
    ),
}
CALLS = {**NO_SUCH_LAYER, **NO_SUCH_OPTION, **OTHER_NAMES}


@pytest.mark.parametrize("name", CALLS)
def test_mistakes_are_explained(name):
    call, message = CALLS[name]
    with pytest.raises(TypeError if name in NO_SUCH_LAYER else ValueError, match=message):
        call()


def test_without_pytorch_the_extra_is_named(monkeypatch):
    module, layer = randomized(torch.nn.Linear(2, 3)), nn.Linear(2, 3, rngs=nnx.Rngs(0))
    numbers = {name: x.detach().numpy() for name, x in module.state_dict().items()}
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (
        lambda: interop.from_torch(module),
        lambda: interop.to_state_dict(layer),
        lambda: interop.to_torch(layer),
        lambda: interop.compare_rule(lambda q, k, v: v, *[array(2, 2)] * 3),
    ):
        with pytest.raises(ImportError, match=r"torch: expected PyTorch .* pip install jax_attention\[interop\]"):
            call()
    assert interop.from_state_dict(layer, numbers).kernel.shape == (2, 3)
    assert interop.difference(layer.kernel[...], layer.kernel[...]).max_abs == 0
