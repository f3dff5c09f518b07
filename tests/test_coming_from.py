"""Every row of docs/coming_from.md, run on both sides. A row without a test, or a test without a row, fails."""

from __future__ import annotations

import doctest
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers.masking_utils as hf_masks
from flax import linen, nnx
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import AuxRequest, and_masks, create_block_mask, flex_attention, or_masks
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gemma2 import modeling_gemma2 as gemma2
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama
from transformers.models.t5.modeling_t5 import T5Attention

from jax_attention import (
    Dropout,
    attend,
    attend_heads,
    attend_heads_with_stats,
    attend_with_stats,
    attention_weights_heads,
    dot_product_attention,
    flax_attention_fn,
    masks,
    mods,
    normalizers,
    positions,
    scores,
)
from tests.tolerances import FORWARD

PAGE = Path(__file__).parent.parent / "docs" / "coming_from.md"
B, T, S, N, K, H = 2, 3, 5, 4, 2, 8
RNG = np.random.default_rng(0)
ROWS = {}

# Eager execution is what we compare with; torch only recommends to compile it.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


q, k, v = normal(B, N, T, H), normal(B, N, S, H), normal(B, N, S, H)
"""Heads first, as in PyTorch."""
Q, KK, V = (np.swapaxes(x, 1, 2) for x in (q, k, v))
"""Heads last, as in jax.nn, Flax and Flash-Attention."""
few_k, few_v = k[:, :K], v[:, :K]
FEW_K, FEW_V = KK[:, :, :K], V[:, :, :K]
BIAS = normal(N, T, S)
ALLOWED = (RNG.random((B, N, T, S)) < 0.6) | (np.arange(S) == 0)
SELF = np.swapaxes(normal(B, N, S, H), 1, 2)
"""Queries for T = S, heads last."""
b_, h_ = jnp.arange(B)[:, None, None, None], jnp.arange(N)[:, None, None]
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def row(function):
    ROWS[function.__name__.replace("_", "-")] = function
    return function


def same(ours, theirs):
    """Equal to rounding; a torch tensor is detached."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, **CLOSE)


def tensors(*arrays):
    return [torch.tensor(np.ascontiguousarray(x)) for x in arrays]


def sdpa(*arrays, attn_mask=None, **options):
    mask = attn_mask if attn_mask is None or isinstance(attn_mask, torch.Tensor) else torch.tensor(attn_mask)
    return F.scaled_dot_product_attention(*tensors(*arrays), attn_mask=mask, **options)


def formula(q, k, v, allowed=True, change=lambda z: z, scale=H**-0.5):
    """The sentence in float64 NumPy, heads last, for libraries that need a GPU. Returns output and logsumexp."""
    groups = q.shape[2] // k.shape[2]
    k, v = np.repeat(k, groups, axis=2), np.repeat(v, groups, axis=2)
    z = change(np.einsum("btnh,bsnh->bnts", q.astype(np.float64), k) * scale)
    w = np.where(allowed, np.exp(z), 0)
    total = w.sum(-1, keepdims=True)
    out = np.einsum("bnts,bsnh->btnh", w / np.where(total > 0, total, 1), v)
    with np.errstate(divide="ignore"):  # an empty row has the logsumexp -inf
        return out, np.log(total[..., 0])


# --- PyTorch


@row
def torch_1():
    same(attend(q, k, v), sdpa(q, k, v))


@row
def torch_2():
    same(attend(q, k, v, mask=masks.dense(ALLOWED)), sdpa(q, k, v, attn_mask=ALLOWED))


@row
def torch_3():
    for attn_mask in (ALLOWED, BIAS, np.where(ALLOWED, BIAS, -np.inf).astype(np.float32)):
        same(attend(q, k, v, **masks.from_torch_sdpa(attn_mask)._asdict()), sdpa(q, k, v, attn_mask=attn_mask))


@row
def torch_4():
    bias = torch.tensor(BIAS, requires_grad=True)
    (theirs,) = torch.autograd.grad(sdpa(q, k, v, attn_mask=bias).sin().sum(), bias)
    same(jax.grad(lambda bias: jnp.sin(attend(q, k, v, mods=(mods.bias(bias),))).sum())(BIAS), theirs)


@row
def torch_5():
    same(attend(q, k, v, mask=masks.causal()), sdpa(q, k, v, is_causal=True))
    same(attend(k, q, q, mask=masks.causal()), sdpa(k, q, q, is_causal=True))


@row
def torch_6():
    same(attend(q, k, v, mask=masks.causal(S - T)), sdpa(q, k, v, attn_mask=causal_lower_right(T, S)))


@row
def torch_7():
    same(attend(q, k, v, score=scores.scaled_dot(0.2)), sdpa(q, k, v, scale=0.2))


@row
def torch_8():
    ours = attend_heads(*(jnp.swapaxes(x, -2, -3) for x in (q, few_k, few_v)))
    same(jnp.swapaxes(ours, -2, -3), sdpa(q, few_k, few_v, enable_gqa=True))


@row
def torch_9():
    """Kept weights are divided by 1 - p in both; the mean over many draws is the attention without dropout."""
    torch.manual_seed(0)
    p, zeros, one_hot = 0.25, np.zeros((400, T, H), np.float32), np.tile(np.eye(S, dtype=np.float32), (400, 1, 1))
    keys = np.zeros((400, S, H), np.float32)
    theirs = sdpa(zeros, keys, one_hot, dropout_p=p).numpy()
    ours = np.asarray(attend(zeros, keys, one_hot, dropout=Dropout(jax.random.key(0), p)))
    for weights in (ours, theirs):
        np.testing.assert_allclose(np.unique(weights), [0, 1 / S / (1 - p)], rtol=1e-6)
        deviation = np.sqrt(p * (1 - p) / weights.size)
        assert abs((weights == 0).mean() - p) < 5 * deviation


def torch_layer(**options):
    """`nn.MultiheadAttention` whose projections are identities: the model size is N * H."""
    layer = torch.nn.MultiheadAttention(N * H, N, bias=False, batch_first=True, **options)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(N * H).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(N * H))
    return layer


def through(layer, **options):
    return layer(*tensors(*(x.reshape(B, -1, N * H) for x in (Q, KK, V))), **options)


@row
def torch_10():
    attn_mask, padding = ~ALLOWED[0, 0], np.arange(S)[None] >= np.array([[S], [2]])
    options = {"attn_mask": torch.tensor(attn_mask), "key_padding_mask": torch.tensor(padding)}
    ours = attend_heads(Q, KK, V, **masks.from_torch_mha(attn_mask, padding)._asdict())
    same(ours.reshape(B, T, N * H), through(torch_layer(), **options)[0])


@row
def torch_11():
    ours = attend_heads(Q, KK, V, normalize=normalizers.softmax(plus_one=True))
    same(ours.reshape(B, T, N * H), through(torch_layer(add_zero_attn=True))[0])


@row
def torch_12():
    ours = attention_weights_heads(Q, KK, V)
    same(ours.mean(-3), through(torch_layer(), need_weights=True)[1])
    same(ours, through(torch_layer(), need_weights=True, average_attn_weights=False)[1])


@row
def torch_13():
    band = torch.ones(S, S, dtype=torch.bool).tril().triu(-1)
    same(attend(k, k, v, mask=masks.sliding_window(2)), sdpa(k, k, v, attn_mask=band))


# --- FlexAttention


def flex(*arrays, mask_mod=None, **options):
    block_mask = mask_mod and create_block_mask(mask_mod, B, N, arrays[0].shape[2], S, device="cpu")
    return flex_attention(*tensors(*arrays), block_mask=block_mask, **options)


def table_of(wrap):
    return wrap(np.linspace(-1, 1, N * (T + S), dtype=np.float32).reshape(N, -1))


@row
def flex_1():
    same(attend(q, k, v), flex(q, k, v))


@row
def flex_2():
    ours = attend(q, k, v, mods=(lambda s, q, k: s - 0.1 * (q - k),))
    same(ours, flex(q, k, v, score_mod=lambda s, b, h, q, k: s - 0.1 * (q - k)))


@row
def flex_3():
    mine, theirs = table_of(jnp.asarray), table_of(torch.tensor)

    def ours(table):
        return attend(q, k, v, mods=(lambda s, q, k: s + table[h_, q - k + S - 1],))

    same(ours(mine), flex(q, k, v, score_mod=lambda s, b, h, q, k: s + theirs[h, q - k + S - 1]))
    assert np.all(np.isfinite(jax.grad(lambda table: ours(table)[..., 0].sum())(mine)))


@row
def flex_4():
    theirs = flex(q, k, v, mask_mod=lambda b, h, q, k: q >= k)
    same(attend(q, k, v, mask=lambda q, k: q >= k), theirs)
    same(attend(q, k, v, mask=masks.causal()), theirs)


@row
def flex_5():
    f, g = (lambda q, k: q >= k), (lambda q, k: (q + k) % 2 == 0)
    their_f, their_g = (lambda b, h, q, k: f(q, k)), (lambda b, h, q, k: g(q, k))
    same(attend(q, k, v, mask=masks.as_mask(f) & g), flex(q, k, v, mask_mod=and_masks(their_f, their_g)))
    same(attend(q, k, v, mask=masks.as_mask(f) | g), flex(q, k, v, mask_mod=or_masks(their_f, their_g)))


@row
def flex_6():
    """A mask made for one length serves every other."""
    mask = masks.causal() & (lambda q, k: q - k < 2)
    for queries in (q, k):
        same(attend(queries, k, v, mask=mask), flex(queries, k, v, mask_mod=lambda b, h, q, k: (q >= k) & (q - k < 2)))


@row
def flex_7():
    blocks = np.array([[1, 0, 1], [1, 1, 0]], bool)
    theirs = torch.tensor(blocks)
    ours = attend(q, k, v, mask=masks.block_sparse(blocks, 2))
    same(ours, flex(q, k, v, mask_mod=lambda b, h, q, k: theirs[q // 2, k // 2]))


@row
def flex_8():
    documents = np.array([[0, 0, 1, 1, 2], [5, 5, 5, 5, 6]])
    theirs = torch.tensor(documents)
    ours = attend(k, k, v, mask=masks.segments(documents[:, None]))
    same(ours, flex(k, k, v, mask_mod=lambda b, h, q, k: theirs[b, q] == theirs[b, k]))


@row
def flex_9():
    ours = attend(q, k, v, mask=masks.causal() | masks.prefix(2))
    same(ours, flex(q, k, v, mask_mod=lambda b, h, q, k: (q >= k) | (k < 2)))


@row
def flex_10():
    ours = attend(q, k, v, mods=(mods.soft_cap(0.7),))
    same(ours, flex(q, k, v, score_mod=lambda s, b, h, q, k: 0.7 * torch.tanh(s / 0.7)))


@row
def flex_11():
    theirs, aux = flex(q, k, v, mask_mod=lambda b, h, q, k: q >= k, return_aux=AuxRequest(lse=True))
    ours = attend_with_stats(q, k, v, mask=masks.causal())
    same(ours.output, theirs)
    same(ours.logsumexp, aux.lse)


@row
def flex_12():
    same(jnp.swapaxes(attend_heads(Q, FEW_K, FEW_V), 1, 2), flex(q, few_k, few_v, enable_gqa=True))


# --- jax.nn


@row
def jaxnn_1():
    lengths = {"key_value_seq_lengths": np.array([S, 2]), "is_causal": True}
    theirs = jax.nn.dot_product_attention(Q, FEW_K, FEW_V, BIAS[None], **lengths)
    same(dot_product_attention(Q, FEW_K, FEW_V, BIAS[None], **lengths), theirs)


@row
def jaxnn_2():
    same(attend_heads(Q, KK, V, mods=(mods.bias(BIAS),)), jax.nn.dot_product_attention(Q, KK, V, bias=BIAS[None]))


@row
def jaxnn_3():
    same(attend_heads(Q, KK, V, mask=masks.dense(ALLOWED)), jax.nn.dot_product_attention(Q, KK, V, mask=ALLOWED))


@row
def jaxnn_4():
    same(attend_heads(Q, KK, V, mask=masks.causal()), jax.nn.dot_product_attention(Q, KK, V, is_causal=True))


@row
def jaxnn_5():
    same(attend_heads(Q, KK, V, score=scores.scaled_dot(0.2)), jax.nn.dot_product_attention(Q, KK, V, scale=0.2))


@row
def jaxnn_6():
    a, b = np.array([T, 1]), np.array([2, S])
    ours = attend_heads(Q, KK, V, mask=masks.lengths(b[:, None], a[:, None]))
    same(ours, jax.nn.dot_product_attention(Q, KK, V, query_seq_lengths=a, key_value_seq_lengths=b))


@row
def jaxnn_7():
    theirs = jax.nn.dot_product_attention(Q, KK, V, local_window_size=(1, 2))
    assert masks.from_jax_nn_window((1, 2)) == masks.sliding_window(2, 2)
    same(attend_heads(Q, KK, V, mask=masks.from_jax_nn_window((1, 2))), theirs)


@row
def jaxnn_8():
    theirs = jax.nn.dot_product_attention(Q, KK, V, return_residual=True)[1]
    same(attend_heads_with_stats(Q, KK, V).logsumexp, theirs)


@row
def jaxnn_9():
    theirs = jax.nn.dot_product_attention(Q, KK, V, implementation="xla")
    same(attend_heads(Q, KK, V, implementation="reference"), theirs)
    with pytest.raises(ValueError, match="no implementation 'typo'"):
        attend_heads(Q, KK, V, implementation="typo")


# --- Flax


@row
def flax_1():
    x = Q.reshape(B, T, N * H)
    theirs = linen.MultiHeadDotProductAttention(N)
    variables = theirs.init(jax.random.key(0), x)
    ours = linen.MultiHeadDotProductAttention(N, attention_fn=flax_attention_fn())
    same(ours.apply(variables, x), theirs.apply(variables, x))


@row
def flax_2():
    x = Q.reshape(B, T, N * H)
    theirs = nnx.MultiHeadAttention(N, N * H, decode=False, rngs=nnx.Rngs(0))
    ours = nnx.MultiHeadAttention(N, N * H, decode=False, rngs=nnx.Rngs(0), attention_fn=flax_attention_fn())
    same(ours(x, is_causal=True), theirs(x, is_causal=True))


@row
def flax_3():
    same(attend_heads(Q, KK, V), linen.dot_product_attention(Q, KK, V))


@row
def flax_4():
    mask = linen.make_causal_mask(np.ones((B, S)))
    same(attend_heads(SELF, KK, V, mask=masks.causal()), linen.dot_product_attention(SELF, KK, V, mask=mask))


@row
def flax_5():
    """Rows without a key are compared apart: 0 here, the mean of all values there."""
    q_lengths, k_lengths = np.array([2, T]), np.array([S, 2])
    real = np.arange(T) < q_lengths[:, None]
    array = linen.make_attention_mask(real, np.arange(S) < k_lengths[:, None])
    theirs = linen.dot_product_attention(Q, KK, V, mask=array)
    for mask in (masks.dense(array > 0), masks.lengths(k_lengths[:, None], q_lengths[:, None])):
        ours = attend_heads(Q, KK, V, mask=mask)
        same(ours[real], theirs[real])
        assert np.all(np.asarray(ours[~real]) == 0)


@row
def flax_6():
    ids = np.array([[0, 0, 1, 1, 1], [3, 4, 4, 5, 5]])
    mask = linen.make_attention_mask(ids, ids, jnp.equal)
    same(
        attend_heads(SELF, KK, V, mask=masks.segments(ids[:, None])),
        linen.dot_product_attention(SELF, KK, V, mask=mask),
    )


@row
def flax_7():
    valid = np.arange(S)[None] < np.array([[S], [2]])
    mask = linen.combine_masks(linen.make_causal_mask(valid), linen.make_attention_mask(np.ones((B, S)), valid))
    ours = attend_heads(SELF, KK, V, mask=masks.causal() & masks.lengths(np.array([[S], [2]])))
    same(ours, linen.dot_product_attention(SELF, KK, V, mask=mask))


@row
def flax_8():
    same(attend_heads(Q, KK, V, mods=(mods.bias(BIAS),)), linen.dot_product_attention(Q, KK, V, bias=BIAS))


@row
def flax_9():
    """One pattern, as in Flax; the bits are others."""
    rng, one_hot = jax.random.key(0), np.broadcast_to(np.eye(S, dtype=np.float32)[:, None], (B, S, N, S))
    theirs = linen.dot_product_attention(Q, KK, one_hot, dropout_rng=rng, dropout_rate=0.5, broadcast_dropout=True)
    ours = attend_heads(Q, KK, one_hot, dropout=Dropout(rng, 0.5, shared=True))
    for out in (ours, theirs):
        kept = np.swapaxes(np.asarray(out) > 0, 1, 2)
        assert np.all(kept == kept[:1, :1])
        assert 0 < kept.mean() < 1


@row
def flax_10():
    x = Q.reshape(B, T, N * H)
    layer = nnx.MultiHeadAttention(N, N * H, decode=False, rngs=nnx.Rngs(0))
    sown = nnx.capture(nnx.Intermediate)(lambda layer: layer(x, sow_weights=True))(layer)[1]
    ours = attention_weights_heads(layer.query(x), layer.key(x), layer.value(x))
    same(ours, sown["attention_weights"][0])


@row
def flax_11():
    """Step t over a cache is row t of Flax's own causal pass."""
    full = linen.dot_product_attention(SELF, KK, V, mask=linen.make_causal_mask(np.ones((B, S))))
    step = jax.jit(lambda x, t: attend_heads(x, KK, V, mask=masks.causal(), query_positions=t[None]))
    for t in range(S):
        same(step(SELF[:, t : t + 1], jnp.array(t)), full[:, t : t + 1])


# --- Hugging Face

PADDING = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
WHERE = np.arange(T) + 4


def eager(attention, queries, keys, values, mask=None, scaling=H**-0.5, groups=1, **options):
    """An `eager_attention_forward` of transformers; heads last in and out."""
    module = SimpleNamespace(num_key_value_groups=groups, training=False, **options.pop("module", {}))
    heads_first = tensors(*(np.swapaxes(x, 1, 2) for x in (queries, keys, values)))
    return attention(module, *heads_first, mask, scaling=scaling, **options)[0]


@row
def hf_1():
    mask = hf_masks.eager_mask(B, S, S, attention_mask=torch.tensor(PADDING == 1))
    ours = attend_heads(SELF, KK, V, mask=masks.from_huggingface(PADDING).mask & masks.causal())
    same(ours, eager(llama.eager_attention_forward, SELF, KK, V, mask))


@row
def hf_2():
    mask = hf_masks.eager_mask(B, S, S, attention_mask=torch.tensor(PADDING == 1))
    theirs = eager(llama.eager_attention_forward, SELF, KK, V, mask)
    for prepared in (mask.numpy(), mask.numpy() == 0):
        same(attend_heads(SELF, KK, V, mask=masks.from_huggingface(prepared).mask), theirs)


@row
def hf_3():
    mask = hf_masks.eager_mask(B, S, S, mask_function=hf_masks.sliding_window_causal_mask_function(2))
    ours = attend_heads(SELF, KK, V, mask=masks.from_huggingface_window(2))
    same(ours, eager(llama.eager_attention_forward, SELF, KK, V, mask))


@row
def hf_4():
    rule = hf_masks.chunked_causal_mask_function(2, torch.zeros(B, dtype=torch.int64))
    mask = hf_masks.eager_mask(B, S, S, mask_function=rule)
    ours = attend_heads(SELF, KK, V, mask=masks.chunked(2) & masks.causal())
    same(ours, eager(llama.eager_attention_forward, SELF, KK, V, mask))


def llama_rope(x, size: int = H, **parameters):
    """`x[B, T, N, size]` turned by transformers to the positions WHERE."""
    config = LlamaConfig(
        hidden_size=N * size,
        num_attention_heads=N,
        max_position_embeddings=parameters.pop("length", 64),
        rope_parameters={"rope_theta": 5000.0, **parameters},
    )
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.tensor(WHERE)[None])
    (x,) = tensors(np.swapaxes(x, 1, 2))
    return llama.apply_rotary_pos_emb(x, x, cos, sin)[0].transpose(1, 2)


@row
def hf_5():
    same(positions.rotary(base=5000.0).heads(Q, WHERE), llama_rope(Q, rope_type="default"))


@row
def hf_6():
    for scaling, parameters in [
        (positions.linear_scaling(4.0), {"rope_type": "linear", "factor": 4.0}),
        (positions.dynamic_scaling(4.0, 4), {"rope_type": "dynamic", "factor": 4.0, "length": 4}),
        (
            positions.llama3_scaling(8.0, 1.0, 4.0, 16),
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ),
        (
            positions.yarn_scaling(4.0, 16),
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        ),
    ]:
        same(positions.rotary(base=5000.0, scaling=scaling).heads(Q, WHERE), llama_rope(Q, **parameters))


@row
def hf_7():
    ours, size = positions.rotary(base=5000.0, size=int(0.5 * H)).heads(Q, WHERE), H // 2
    same(ours[..., :size], llama_rope(Q[..., :size], size=size, rope_type="default"))
    same(ours[..., size:], Q[..., size:])


@row
def hf_8():
    sin, cos = gptj.create_sinusoidal_positions(8, H)[WHERE][None].chunk(2, dim=-1)
    same(
        positions.rotary(style="interleaved").heads(Q, WHERE), gptj.apply_rotary_pos_emb(*tensors(Q), sin=sin, cos=cos)
    )


@row
def hf_9():
    ours = attend_heads(SELF, KK, V, mods=(mods.soft_cap(0.6),), mask=masks.causal())
    mask = hf_masks.eager_mask(B, S, S)
    same(ours, eager(gemma2.eager_attention_forward, SELF, KK, V, mask, softcap=0.6))


@row
def hf_10():
    theirs = eager(gemma2.eager_attention_forward, Q, KK, V, scaling=144**-0.5)
    same(attend_heads(Q, KK, V, score=scores.scaled_dot(144**-0.5)), theirs)


@row
def hf_11():
    table = normal(32, N)
    buckets = T5Attention._relative_position_bucket(torch.arange(S)[None] - torch.arange(T)[:, None])
    bias = torch.tensor(table)[buckets].permute(2, 0, 1)[None]
    ours = attend_heads(Q, KK, V, score=scores.dot(), mods=(mods.relative(table.T),))
    same(ours, eager(llama.eager_attention_forward, Q, KK, V, bias, scaling=1.0))


@row
def hf_12():
    alibi = build_alibi_tensor(torch.ones(B, S), N, torch.float32).reshape(B, N, 1, S)
    ours = attend_heads(SELF, KK, V, mods=(mods.alibi(positions.alibi_slopes(N)),), mask=masks.causal())
    same(ours, eager(llama.eager_attention_forward, SELF, KK, V, alibi + hf_masks.eager_mask(B, S, S)))


@row
def hf_13():
    sinks = normal(N)
    theirs = eager(gpt_oss.eager_attention_forward, Q, KK, V, module={"sinks": torch.tensor(sinks)})
    same(attend_heads(Q, KK, V, normalize=normalizers.softmax(sinks)), theirs)


@row
def hf_14():
    theirs = eager(llama.eager_attention_forward, Q, FEW_K, FEW_V, groups=N // K)
    same(attend_heads(Q, FEW_K, FEW_V), theirs)


# --- Flash-Attention: its documented formula

t_, s_ = np.arange(T)[:, None], np.arange(S)
END = t_ + S - T
"""The key beside which each query stands, when the ends are aligned."""


@row
def flash_1():
    same(attend_heads(Q, FEW_K, FEW_V), formula(Q, FEW_K, FEW_V)[0])


@row
def flash_2():
    same(attend_heads(Q, KK, V, mask=masks.causal(S - T)), formula(Q, KK, V, s_ <= END)[0])
    more = np.arange(S)[:, None] + T - S  # more queries than keys: the first rows are empty, 0 in both
    same(attend_heads(KK, Q, Q, mask=masks.causal(T - S)), formula(KK, Q, Q, np.arange(T) <= more)[0])


@row
def flash_3():
    assert masks.from_flash_window((1, 1), T, S) == masks.sliding_window(2, 1, offset=S - T)
    for left, right in [(1, 1), (0, 2), (-1, 0), (1, -1)]:
        allowed = ((left < 0) | (s_ >= END - left)) & ((right < 0) | (s_ <= END + right))
        ours = attend_heads(Q, KK, V, mask=masks.from_flash_window((left, right), T, S))
        same(ours, formula(Q, KK, V, allowed)[0])


@row
def flash_4():
    ours = attend_heads(Q, KK, V, mask=masks.from_flash_window((1, 2), T, S, causal=True))
    same(ours, formula(Q, KK, V, (s_ >= END - 1) & (s_ <= END))[0])


@row
def flash_5():
    ours = attend_heads(Q, KK, V, mods=(mods.soft_cap(0.8),))
    same(ours, formula(Q, KK, V, change=lambda z: 0.8 * np.tanh(z / 0.8))[0])


@row
def flash_6():
    per_head = np.asarray(positions.alibi_slopes(N))
    for slopes in (per_head, per_head * np.array([[1.0], [0.5]], np.float32)):
        ours = attend_heads(Q, KK, V, mods=(mods.alibi(slopes),), query_positions=jnp.arange(T) + S - T)
        theirs, _ = formula(Q, KK, V, change=lambda z, m=slopes: z - m[..., None, None] * np.abs(END - s_))
        same(ours, theirs)


@row
def flash_7():
    same(attend_heads(Q, KK, V, score=scores.scaled_dot(0.2)), formula(Q, KK, V, scale=0.2)[0])


@row
def flash_8():
    """Documents of lengths 2 and 3 in one row: each as if it were alone."""
    bounds, ids = np.array([0, 2, S]), np.array([0, 0, 1, 1, 1])
    ours = attend_heads(SELF[0], KK[0], V[0], mask=masks.segments(ids) & masks.causal())
    for start, end in itertools.pairwise(bounds):
        part = [x[:1, start:end] for x in (SELF, KK, V)]
        same(ours[start:end], formula(*part, np.tri(end - start, dtype=bool))[0][0])


@row
def flash_9():
    ours = attend_heads_with_stats(Q, KK, V, mask=masks.causal(S - T)).logsumexp
    same(np.swapaxes(ours, 1, 2), formula(Q, KK, V, s_ <= END)[1])


# --- the page


def ids_on_the_page() -> list[str]:
    return re.findall(r"^\| ([a-z]+-\d+) \|", PAGE.read_text(), flags=re.MULTILINE)


def test_every_row_has_a_test_and_every_test_a_row():
    found = ids_on_the_page()
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(ROWS)


def test_every_row_has_four_cells():
    for line in PAGE.read_text().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_output_on_the_page_is_real():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted >= 4
    assert result.failed == 0


@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    ROWS[name]()
