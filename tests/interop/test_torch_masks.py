"""Converted Transformers called with PyTorch's masks: a mask of queries and keys, padding, a mask of the memory."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from jax_attention import attend, interop, masks
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import PARITY
from tests.support.torch_parity import check_equal, inputs, randomized

B, S, T, D, N = 2, 5, 4, 15, 3
SIZES = {"d_model": D, "nhead": N, "dim_feedforward": 11, "dropout": 0.0, "batch_first": True}


def forbidden(*shape, seed=0):
    """True = forbidden, as PyTorch reads it; key 0 stays allowed."""
    return (np.random.default_rng(seed).random(shape) < 0.4) & (np.arange(shape[-1]) > 0)


def additive(*shape, seed=0):
    """Random numbers to add to the scores, -inf at forbidden pairs."""
    noise = np.random.default_rng(seed + 10).normal(size=shape)
    return np.where(forbidden(*shape, seed=seed), -np.inf, noise).astype(np.float32)


def encoder_layer():
    return torch.nn.TransformerEncoderLayer(**SIZES)


def decoder_layer():
    return torch.nn.TransformerDecoderLayer(**SIZES, norm_first=True)


def encoder():
    return torch.nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False)


def decoder():
    return torch.nn.TransformerDecoder(decoder_layer(), 2, torch.nn.LayerNorm(D))


def both():
    stacks = {"custom_encoder": torch.nn.TransformerEncoder(encoder_layer(), 1, enable_nested_tensor=False)}
    stacks["custom_decoder"] = torch.nn.TransformerDecoder(decoder_layer(), 1)
    return torch.nn.Transformer(D, N, batch_first=True, **stacks)


MASKS = {
    "bool": {"attn_mask": forbidden(T, T)},
    "float": {"attn_mask": additive(T, T)},
    "padding": {"key_padding_mask": forbidden(B, T, seed=1)},
    "both, per head": {"attn_mask": additive(B * N, T, T), "key_padding_mask": additive(B, T, seed=1)},
}
MEMORY_MASKS = {
    "bool": {"attn_mask": forbidden(T, S)},
    "float": {"attn_mask": additive(T, S)},
    "padding": {"key_padding_mask": forbidden(B, S, seed=1)},
    "both, per head": {"attn_mask": additive(B * N, T, S), "key_padding_mask": additive(B, S, seed=1)},
}


def as_tensors(arrays, mask_name, padding_name):
    """The two masks under the names that a module of PyTorch has for them."""
    names = {"attn_mask": mask_name, "key_padding_mask": padding_name}
    return {names[name]: torch.tensor(x) for name, x in arrays.items()}


def converted(arrays):
    return masks.from_torch_mha(**arrays, num_heads=N)


def for_memory(arrays):
    mask, mods = converted(arrays)
    return {"memory_mask": mask, "memory_mods": mods}


QUICK = ("both, per head",)


@pytest.mark.parametrize("make", [encoder_layer, *slow(encoder)])
@pytest.mark.parametrize("name", slow_except(QUICK, MASKS))
def test_an_encoder_is_called_like_its_torch_module(make, name):
    """It gives an array, and takes what `from_torch_mha` gives: both the mask and the mods."""
    module, mask_name = randomized(make(), scale=0.25), "mask" if make is encoder else "src_mask"
    check_equal(
        module,
        inputs("float32", (B, T, D)),
        lambda module, x: (module(x, **as_tensors(MASKS[name], mask_name, "src_key_padding_mask")),),
        lambda stack, x: (stack(x, **converted(MASKS[name])._asdict()),),
    )


def run_torch_decoder(module, memory, target, target_masks, memory_masks):
    target_masks = as_tensors(target_masks, "tgt_mask", "tgt_key_padding_mask")
    return (module(target, memory, **target_masks, **as_tensors(memory_masks, "memory_mask", PADDING_OF_MEMORY)),)


PADDING_OF_MEMORY = "memory_key_padding_mask"


@pytest.mark.parametrize("make", [decoder_layer, *slow(decoder)])
@pytest.mark.parametrize("name", slow_except(QUICK, MASKS))
def test_a_decoder_takes_a_mask_of_queries_and_keys_of_the_memory(make, name):
    """PyTorch's `memory_mask`, with a mask of the target at the same time."""
    check_equal(
        randomized(make(), scale=0.25),
        inputs("float32", (B, S, D), (B, T, D)),
        lambda module, *arrays: run_torch_decoder(module, *arrays, MASKS[name], MEMORY_MASKS[name]),
        lambda stack, x, y: (stack(y, x, **converted(MASKS[name])._asdict(), **for_memory(MEMORY_MASKS[name])),),
    )


@pytest.mark.parametrize("name", slow_except(("float",), MEMORY_MASKS))
def test_a_transformer_takes_a_mask_of_the_memory(name):
    def run_torch(module, source, target):
        names = as_tensors(MEMORY_MASKS[name], "memory_mask", PADDING_OF_MEMORY)
        return (module(source, target, tgt_mask=torch.tensor(MASKS["bool"]["attn_mask"]), **names),)

    def run_jax(stacks, source, target):
        return (stacks(source, target, **converted(MASKS["bool"])._asdict(), **for_memory(MEMORY_MASKS[name])),)

    check_equal(randomized(both(), scale=0.25), inputs("float32", (B, S, D), (B, T, D)), run_torch, run_jax)


def test_a_mask_of_the_source_goes_to_the_encoder():
    def run_torch(module, source, target):
        return (module(source, target, src_mask=torch.tensor(SOURCE_MASK)),)

    def run_jax(stacks, source, target):
        return (stacks.decoder(target, stacks.encoder(source, mask=masks.from_torch_mha(SOURCE_MASK).mask)),)

    check_equal(randomized(both(), scale=0.25), inputs("float32", (B, S, D), (B, T, D)), run_torch, run_jax)


SOURCE_MASK = forbidden(S, S)


def test_attend_takes_what_from_torch_mha_gives():
    (x,) = inputs("float32", (B, T, D))
    mask = additive(T, T)
    expected = torch.nn.functional.scaled_dot_product_attention(*[torch.tensor(x)] * 3, torch.tensor(mask))
    np.testing.assert_allclose(
        attend(x, x, x, **masks.from_torch_mha(mask)._asdict()), expected, rtol=PARITY, atol=PARITY
    )


def test_a_mask_without_a_memory_is_refused():
    stack = interop.from_torch(encoder_layer())
    with pytest.raises(ValueError, match=r"memory_mask: expected None without a memory, got a mask or mods for it"):
        jax.eval_shape(lambda: stack(np.ones((T, D), np.float32), memory_mask=masks.causal()))
