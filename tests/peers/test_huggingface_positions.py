"""Position encodings against Hugging Face transformers (modules from tiny configs) and float64 formulas."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig, PhiConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt_neox import modeling_gpt_neox as gpt_neox
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.phi import modeling_phi as phi
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextSinusoidalPositionalEmbedding
from transformers.models.t5.modeling_t5 import T5Attention

from jax_attention import attention_weights_heads, masks, mods, positions
from tests.support.tiers import slow, slow_except, slow_except_every
from tests.support.tolerances import FORWARD, GRADIENT, PARITY

B, N, H, ORIGINAL = 2, 2, 16, 32
FORWARD_32 = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def yarn(**extra):
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL, **extra}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MSCALE = (0.1 * 0.7 * math.log(4.0) + 1) / (0.1 * 1.5 * math.log(4.0) + 1)

SCALINGS = {
    "default": ({"rope_type": "default"}, None),
    "linear": ({"rope_type": "linear", "factor": 4.0}, positions.linear_scaling(4.0)),
    "dynamic": ({"rope_type": "dynamic", "factor": 4.0}, positions.dynamic_scaling(4.0, ORIGINAL)),
    "llama3": (
        {**LLAMA3, "original_max_position_embeddings": 512},
        positions.llama3_scaling(8.0, 1.0, 4.0, 512),
    ),
    "yarn": (yarn(), positions.yarn_scaling(4.0, ORIGINAL)),
    "yarn, attention_factor": (yarn(attention_factor=1.3), positions.yarn_scaling(4.0, ORIGINAL, attention_factor=1.3)),
    "yarn, not truncated": (yarn(truncate=False), positions.yarn_scaling(4.0, ORIGINAL, truncate=False)),
    "yarn, betas": (
        yarn(beta_fast=4.0, beta_slow=0.5),
        positions.yarn_scaling(4.0, ORIGINAL, beta_fast=4.0, beta_slow=0.5),
    ),
    "yarn, mscale": (
        yarn(mscale=0.7, mscale_all_dim=1.5),
        positions.yarn_scaling(4.0, ORIGINAL, attention_factor=MSCALE),
    ),
    "yarn, mscale without mscale_all_dim is ignored": (yarn(mscale=0.7), positions.yarn_scaling(4.0, ORIGINAL)),
}


def llama_rotary(parameters: dict, base: float):
    is_yarn = parameters["rope_type"] == "yarn"
    config = LlamaConfig(
        hidden_size=N * H,
        num_attention_heads=N,
        max_position_embeddings=ORIGINAL * (4 if is_yarn else 1),
        rope_parameters={"rope_theta": base, **parameters},
    )
    return llama.LlamaRotaryEmbedding(config)


def vectors(length: int, dtype=np.float32, size: int = H):
    """Vectors `[B, T, N, size]` of order one, in the layout of `attend_heads`."""
    return np.random.default_rng(0).normal(size=(B, length, N, size)).astype(dtype)


def to_torch(x):
    """Torch tensor in the layout of Hugging Face: `[B, T, N, H] -> [B, N, T, H]`."""
    return torch.tensor(np.swapaxes(np.asarray(x), 1, 2))


LENGTHS = (ORIGINAL - 3, ORIGINAL + 9)
QUICK = {("linear", LENGTHS[0]), ("dynamic", LENGTHS[1]), ("llama3", LENGTHS[1])}
QUICK |= {("yarn, betas", LENGTHS[1]), ("yarn, attention_factor", LENGTHS[0])}
GRID = [
    pytest.param(name, length, marks=() if (name, length) in QUICK else pytest.mark.slow)
    for name in SCALINGS
    for length in LENGTHS
]


@pytest.mark.parametrize(("name", "length"), GRID)
def test_rotary_of_llama(name, length):
    """Below and above the original length; frequencies too, since errors of small ones barely rotate a vector."""
    parameters, scaling = SCALINGS[name]
    x, token_positions = vectors(length), np.arange(length)
    hf_rotary = llama_rotary(parameters, 5000.0)
    cos, sin = hf_rotary(torch.zeros(1), torch.tensor(token_positions)[None])
    expected, _ = llama.apply_rotary_pos_emb(to_torch(x), to_torch(x), cos, sin)
    rope = positions.rotary(base=5000.0, scaling=scaling)
    run = jax.jit(
        lambda x: (rope.heads(x, token_positions), rope.scaling.frequencies(H, 5000.0, token_positions.max() + 1))
    )
    jax_output, frequencies = run(x)
    np.testing.assert_allclose(jax_output, np.swapaxes(expected.numpy(), 1, 2), **FORWARD_32)
    np.testing.assert_allclose(frequencies, hf_rotary.inv_freq.numpy(), rtol=PARITY)
    np.testing.assert_allclose(rope.scaling.attention_factor(), hf_rotary.attention_scaling, rtol=1e-12)


def test_rotary_gradient():
    x, token_positions = vectors(9), np.arange(9)
    tensor = to_torch(x).requires_grad_()
    cos, sin = llama_rotary({"rope_type": "default"}, 10000.0)(torch.zeros(1), torch.tensor(token_positions)[None])
    out, _ = llama.apply_rotary_pos_emb(tensor, tensor, cos, sin)
    (expected,) = torch.autograd.grad((out**3).sum(), tensor)
    jax_gradient = jax.jit(jax.grad(lambda x: (positions.rotary().heads(x, token_positions) ** 3).sum()))(x)
    tolerance = GRADIENT["float32"]
    np.testing.assert_allclose(jax_gradient, np.swapaxes(expected.numpy(), 1, 2), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [H, 6])
def test_rotary_interleaved_of_gptj(size):
    """Interleaved pairs, for the whole head and for `rotary_dim` features of it (transformers#25199)."""
    x = vectors(9)
    sin, cos = gptj.create_sinusoidal_positions(9, size)[None].chunk(2, dim=-1)
    tensor = torch.tensor(x)
    rotated = gptj.apply_rotary_pos_emb(tensor[..., :size], sin, cos)
    expected = torch.cat([rotated, tensor[..., size:]], dim=-1)
    rope = positions.rotary(style="interleaved", size=size)
    jax_output = jax.jit(lambda x: rope.heads(x, np.arange(9)))(x)
    np.testing.assert_allclose(jax_output, expected.numpy(), **FORWARD_32)
    assert np.array_equal(jax_output[..., size:], x[..., size:])


@pytest.mark.parametrize(
    ("config", "embedding"),
    [(GPTNeoXConfig, gpt_neox.GPTNeoXRotaryEmbedding), (PhiConfig, phi.PhiRotaryEmbedding)],
)
def test_partial_rotary(config, embedding):
    """By `partial_rotary_factor`, GPT-NeoX rotates a quarter of the head and Phi half of it."""
    factor = 0.25 if config is GPTNeoXConfig else 0.5
    parameters = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": factor}
    x, token_positions, size = vectors(9), np.arange(9), int(factor * H)
    hf_rotary = embedding(config(hidden_size=N * H, num_attention_heads=N, rope_parameters=parameters))
    cos, sin = hf_rotary(torch.zeros(1), torch.tensor(token_positions)[None])
    q = to_torch(x)
    rotated, _ = llama.apply_rotary_pos_emb(q[..., :size], q[..., :size], cos, sin)
    expected = torch.cat([rotated, q[..., size:]], dim=-1).numpy()
    jax_output = jax.jit(lambda x: positions.rotary(size=size).heads(x, token_positions))(x)
    np.testing.assert_allclose(jax_output, np.swapaxes(expected, 1, 2), **FORWARD_32)


def exact_rotation(x, token_positions, style: str, frequencies):
    """`x[T, H]`, rotated as complex numbers in float64 by the angles `token_positions[T] * frequencies[H / 2]`."""
    x, rotation = np.asarray(x, np.float64), np.exp(1j * token_positions[:, None] * np.asarray(frequencies, np.float64))
    half = x.shape[-1] // 2
    pairs = x[:, :half] + 1j * x[:, half:] if style == "half" else x[:, 0::2] + 1j * x[:, 1::2]
    pairs = pairs * rotation
    if style == "half":
        return np.concatenate([pairs.real, pairs.imag], axis=-1)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


FAR = [(name, style) for name in ("default", "linear", "llama3") for style in ("half", "interleaved")]


@pytest.mark.parametrize(("name", "style"), slow_except_every(3, [pytest.param(*case) for case in FAR], 2))
def test_far_positions_are_exact(name, style):
    """Error below 1e-3 at position 100000, under jit, in float32 and bfloat16 (litgpt#1860, flash-attention#288)."""
    token_positions = np.array([0, 1, 4095, 65535, 99_999, 100_000])
    scaling = SCALINGS[name][1]
    rope = positions.rotary(style=style, scaling=scaling)
    unit = np.random.default_rng(0).uniform(-1, 1, (len(token_positions), H))
    i = np.arange(H // 2)
    frequencies = 10000.0 ** (-2 * i / H)
    if name == "linear":
        frequencies = frequencies / 4
    elif name == "llama3":
        keep = np.clip((512 * frequencies / (2 * np.pi) - 1) / 3, 0, 1)
        frequencies = keep * frequencies + (1 - keep) * frequencies / 8
    single = jax.jit(rope)(unit.astype(np.float32), token_positions)
    np.testing.assert_allclose(single, exact_rotation(unit, token_positions, style, frequencies), rtol=0, atol=1e-3)
    narrow = unit.astype(jnp.bfloat16)
    rotated = jax.jit(rope)(narrow, token_positions)
    exact = exact_rotation(narrow, token_positions, style, frequencies)
    assert rotated.dtype == jnp.bfloat16
    half_unit_in_the_last_place = 2.0**-8 * np.abs(exact)
    assert np.all(np.abs(np.asarray(rotated, np.float64) - exact) <= 1e-3 + half_unit_in_the_last_place)


@pytest.mark.parametrize("heads", slow_except((1, 8, 12), range(1, 25)))
def test_alibi_of_bloom(heads):
    """BLOOM adds slope * k_pos. The slopes are equal, and so are the weights under a causal mask."""
    length = 5
    hf_alibi = build_alibi_tensor(torch.ones(1, length), heads, torch.float32).numpy()
    slopes = positions.alibi_slopes(heads)
    np.testing.assert_allclose(hf_alibi, np.asarray(slopes)[:, None, None] * np.arange(length), rtol=PARITY)
    if heads in (1, 12):
        x = np.random.default_rng(0).normal(size=(length, heads, 4)).astype(np.float32)
        weights = lambda mod: attention_weights_heads(x, x, x, mask=masks.causal(), mods=(mod,))  # noqa: E731
        jax_weights, bloom_weights = jax.jit(
            lambda: [weights(mod) for mod in (mods.alibi(slopes), mods.bias(hf_alibi))]
        )()
        np.testing.assert_allclose(jax_weights, bloom_weights, **FORWARD_32)


BUCKETS = [pytest.param(32, 128), pytest.param(4, 10)]
BUCKETS += slow(*(pytest.param(*sizes) for sizes in ((32, 20), (16, 64), (8, 256), (64, 1000))))


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), BUCKETS)
def test_t5_buckets(buckets, max_distance, bidirectional):
    relative = np.arange(-300, 301)
    options = {"bidirectional": bidirectional, "num_buckets": buckets, "max_distance": max_distance}
    hf_buckets = T5Attention._relative_position_bucket(torch.tensor(relative), **options)
    np.testing.assert_array_equal(positions.t5_buckets(relative, **options), hf_buckets.numpy())


def test_t5_relative_bias():
    """The bias from T5's embedding table `[buckets, N]`, and its gradient by the table."""
    config_heads, length = 3, 7
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(32, config_heads)
    offsets = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    hf_bias = embedding(T5Attention._relative_position_bucket(offsets)).permute(2, 0, 1)
    cotangent = np.random.default_rng(0).normal(size=hf_bias.shape).astype(np.float32)
    (expected,) = torch.autograd.grad(hf_bias, embedding.weight, torch.tensor(cotangent))
    q, k = jnp.arange(length)[:, None], jnp.arange(length)[None, :]
    zeros = jnp.zeros((config_heads, length, length))
    table = jnp.asarray(embedding.weight.detach().numpy().T)

    @jax.jit
    def run(table):
        jax_bias, pull = jax.vjp(lambda table: mods.relative(table)(zeros, q, k), table)
        return jax_bias, pull(cotangent)[0]

    jax_bias, gradient = run(table)
    np.testing.assert_array_equal(jax_bias, hf_bias.detach().numpy())
    np.testing.assert_allclose(gradient.T, expected.numpy(), **FORWARD_32)


@pytest.mark.parametrize("size", [8, 30])
def test_sinusoidal_of_marian(size):
    """The layout with all sines first, which Marian computes in float64, and the layout of the paper."""
    module = MarianSinusoidalPositionalEmbedding(50, size)
    hf_table = module.create_weight().numpy()
    tables = jax.jit(lambda: [positions.sinusoidal(np.arange(50), size, style=x) for x in ("half", "interleaved")])
    half, interleaved = tables()
    np.testing.assert_allclose(half, hf_table, rtol=PARITY, atol=PARITY)
    angle = np.arange(50)[:, None] / 10000.0 ** (np.arange(0, size, 2) / size)
    np.testing.assert_allclose(interleaved[:, 0::2], np.sin(angle), atol=PARITY)
    np.testing.assert_allclose(interleaved[:, 1::2], np.cos(angle), atol=PARITY)


def test_sinusoidal_of_tensor2tensor():
    """Another base gives the table of tensor2tensor, Fairseq and Speech2Text, which divide by size / 2 - 1."""
    size = 16
    hf_table = Speech2TextSinusoidalPositionalEmbedding.get_embedding(20, size).numpy()
    base = 10000.0 ** (size / (size - 2))
    np.testing.assert_allclose(
        positions.sinusoidal(np.arange(20), size, style="half", base=base), hf_table, **FORWARD_32
    )


def test_sinusoidal_far_out():
    token_positions = np.array([99_999, 100_000])
    angle = token_positions[:, None] / 10000.0 ** (np.arange(0, 8, 2) / 8)
    table = positions.sinusoidal(token_positions, 8, style="half")
    np.testing.assert_allclose(table, np.concatenate([np.sin(angle), np.cos(angle)], -1), rtol=0, atol=1e-3)


def test_learned_is_an_embedding():
    torch.manual_seed(0)
    embedding, token_positions = torch.nn.Embedding(10, 4), np.array([[3, 0, 9], [3, 3, 1]])
    torch_output = embedding(torch.tensor(token_positions))
    cotangent = np.random.default_rng(0).normal(size=torch_output.shape).astype(np.float32)
    (expected,) = torch.autograd.grad(torch_output, embedding.weight, torch.tensor(cotangent))
    table = jnp.asarray(embedding.weight.detach().numpy())

    @jax.jit
    def run(table):
        jax_output, pull = jax.vjp(lambda table: positions.learned(table, token_positions), table)
        return jax_output, pull(cotangent)[0]

    jax_output, gradient = run(table)
    np.testing.assert_array_equal(jax_output, torch_output.detach().numpy())
    np.testing.assert_allclose(gradient, expected.numpy(), **FORWARD_32)
