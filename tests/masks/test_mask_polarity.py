"""Polarity: converted masks of PyTorch and Hugging Face allow the same pairs as the originals.

The confusions are those of equinox#463, LLMs-from-scratch#1061, x-transformers#164 and pytorch#120668.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers.masking_utils as hf_masks

from jax_attention import attention_weights_heads, masks
from tests.masks.pictures import CLOSE, matrix, picture

B, T, N, D = 2, 5, 2, 8
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)


def forbidden(shape, seed: int = 0) -> np.ndarray:
    """True = forbidden, as `torch.nn.MultiheadAttention` reads it; key 0 stays allowed."""
    return (np.random.default_rng(seed).random(shape) < 0.4) & (np.arange(shape[-1]) > 0)


def additive(shape, seed: int) -> np.ndarray:
    """Random numbers to add to the scores, with -inf at forbidden pairs."""
    noise = np.random.default_rng(seed + 10).normal(size=shape).astype(np.float32)
    return np.where(forbidden(shape, seed), -np.inf, noise).astype(np.float32)


TORCH_MHA = {
    "attn_mask [T, S]": {"attn_mask": forbidden((T, T))},
    "attn_mask [T, S], float": {"attn_mask": additive((T, T), 1)},
    "attn_mask [B * N, T, S]": {"attn_mask": forbidden((B * N, T, T)), "num_heads": N},
    "attn_mask [B * N, T, S], float": {"attn_mask": additive((B * N, T, T), 2), "num_heads": N},
    "key_padding_mask": {"key_padding_mask": forbidden((B, T))},
    "key_padding_mask, float": {"key_padding_mask": additive((B, T), 3)},
    "both": {"attn_mask": forbidden((T, T), 4), "key_padding_mask": forbidden((B, T), 5)},
    "both, float": {"attn_mask": additive((T, T), 6), "key_padding_mask": additive((B, T), 7)},
    "causal": {"attn_mask": torch.nn.Transformer.generate_square_subsequent_mask(T).numpy()},
}


@pytest.mark.parametrize("name", TORCH_MHA)
def test_torch_multihead_masks(name):
    """The weights of a torch layer whose projections are identities."""
    layer = torch.nn.MultiheadAttention(D, N, bias=False, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(D).repeat(3, 1))
    torch_masks = {key: torch.tensor(x) for key, x in TORCH_MHA[name].items() if key != "num_heads"}
    x = torch.tensor(X)
    torch_weights = layer(x, x, x, average_attn_weights=False, **torch_masks)[1].detach().numpy()
    heads = X.reshape(B, T, N, D // N)
    converted = masks.from_torch_mha(**TORCH_MHA[name])
    jax_weights = attention_weights_heads(heads, heads, heads, **converted._asdict())
    np.testing.assert_allclose(jax_weights, torch_weights, **CLOSE)


def test_torch_mha_and_sdpa_have_opposite_polarity():
    array = forbidden((T, T))
    mha, sdpa = masks.from_torch_mha(array).mask, masks.from_torch_sdpa(array).mask
    np.testing.assert_array_equal(matrix(picture(mha, T, T)), ~array)
    np.testing.assert_array_equal(matrix(picture(~sdpa, T, T)), ~array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected at least one of them, got None for both"),
        ({"attn_mask": np.ones((4, 2, 2), bool)}, r"A 3-d attn_mask is \[B \* num_heads, T, S\]: pass num_heads"),
        ({"attn_mask": np.ones((4, 2, 2), bool), "num_heads": 3}, "divisible by num_heads = 3"),
        ({"attn_mask": np.ones(2, bool)}, r"expected \[T, S\] or \[B \* num_heads, T, S\]"),
        ({"key_padding_mask": np.ones((1, 2, 3), bool)}, r"expected \[B, S\] or \[S\]"),
        ({"attn_mask": np.ones((2, 2), int)}, "attn_mask != 0"),
    ],
)
def test_torch_mha_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        masks.from_torch_mha(**arguments)


PADDING = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def test_huggingface_padding():
    converted = masks.from_huggingface(PADDING)
    assert converted.mods == ()
    np.testing.assert_array_equal(converted.mask.array, (PADDING == 1)[:, None, None])


@pytest.mark.parametrize("dtype", ["bool", "float32", "float16", "bfloat16"])
def test_huggingface_prepared(dtype):
    """The `[B, 1, T, S]` mask that transformers builds from padding and causality."""
    padding = torch.tensor(PADDING == 1)
    allowed = hf_masks.sdpa_mask(B, T, T, attention_mask=padding, allow_is_causal_skip=False)
    if dtype == "bool":
        prepared = allowed.numpy()
    else:
        floats = hf_masks.eager_mask(B, T, T, attention_mask=padding, dtype=getattr(torch, dtype))
        prepared = jnp.asarray(floats.float().numpy(), dtype)
    np.testing.assert_array_equal(masks.from_huggingface(prepared).mask.array, allowed.numpy())
    combined = masks.from_huggingface(PADDING).mask & masks.causal()
    tile = combined(jnp.arange(T)[:, None], jnp.arange(T)[None])
    np.testing.assert_array_equal(tile, allowed.numpy())


def test_huggingface_float_mask_keeps_a_finite_bias():
    """T5 adds its position bias to the mask: numbers far from the lowest one are a bias."""
    prepared = np.array([[[[0.5, -2.0, np.finfo(np.float32).min, np.finfo(np.float32).min + 1e30]]]], np.float32)
    converted = masks.from_huggingface(prepared)
    np.testing.assert_array_equal(converted.mask.array, [[[[True, True, False, False]]]])
    np.testing.assert_array_equal(converted.mods[0].array, [[[[0.5, -2.0, 0.0, 0.0]]]])


def test_huggingface_rank_is_checked():
    with pytest.raises(ValueError, match=r"attention_mask: expected \[B, S\] or \[B, 1, T, S\], got int\d+\[5\]"):
        masks.from_huggingface(PADDING[0])
