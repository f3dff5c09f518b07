"""The rows of Hugging Face: the masks, positions and eager attention of its models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import transformers.masking_utils as hf_masks
from transformers import LlamaConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gemma2 import modeling_gemma2 as gemma2
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
from transformers.models.gptj import modeling_gptj as gptj
from transformers.models.llama import modeling_llama as llama
from transformers.models.t5.modeling_t5 import T5Attention

from jax_attention import attend_heads, masks, mods, normalizers, positions, scores
from tests.coming_from.operands import FEW_K, FEW_V, KK, SELF, B, H, K, N, Q, S, T, V, check_close, normal, tensors

PADDING = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
POSITIONS = np.arange(T) + 4


def eager(attention, queries, keys, values, mask=None, scaling=H**-0.5, groups=1, **options):
    """Output of an `eager_attention_forward` of transformers; arrays have their heads last."""
    module = SimpleNamespace(num_key_value_groups=groups, training=False, **options.pop("module", {}))
    heads_first = tensors(*(np.swapaxes(x, 1, 2) for x in (queries, keys, values)))
    return attention(module, *heads_first, mask, scaling=scaling, **options)[0]


def hf_1():
    mask = hf_masks.eager_mask(B, S, S, attention_mask=torch.tensor(PADDING == 1))
    jax_output = attend_heads(SELF, KK, V, mask=masks.from_huggingface(PADDING).mask & masks.causal())
    check_close(jax_output, eager(llama.eager_attention_forward, SELF, KK, V, mask))


def hf_2():
    mask = hf_masks.eager_mask(B, S, S, attention_mask=torch.tensor(PADDING == 1))
    hf_output = eager(llama.eager_attention_forward, SELF, KK, V, mask)
    for hf_mask in (mask.numpy(), mask.numpy() == 0):
        check_close(attend_heads(SELF, KK, V, mask=masks.from_huggingface(hf_mask).mask), hf_output)


def hf_3():
    mask = hf_masks.eager_mask(B, S, S, mask_function=hf_masks.sliding_window_causal_mask_function(2))
    jax_output = attend_heads(SELF, KK, V, mask=masks.from_huggingface_window(2))
    check_close(jax_output, eager(llama.eager_attention_forward, SELF, KK, V, mask))


def hf_4():
    rule = hf_masks.chunked_causal_mask_function(2, torch.zeros(B, dtype=torch.int64))
    mask = hf_masks.eager_mask(B, S, S, mask_function=rule)
    jax_output = attend_heads(SELF, KK, V, mask=masks.chunked(2) & masks.causal())
    check_close(jax_output, eager(llama.eager_attention_forward, SELF, KK, V, mask))


def llama_rope(x, size: int = H, **parameters):
    """`x[B, T, N, size]` rotated by transformers to the positions `POSITIONS`."""
    config = LlamaConfig(
        hidden_size=N * size,
        num_attention_heads=N,
        max_position_embeddings=parameters.pop("length", 64),
        rope_parameters={"rope_theta": 5000.0, **parameters},
    )
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.tensor(POSITIONS)[None])
    (x,) = tensors(np.swapaxes(x, 1, 2))
    return llama.apply_rotary_pos_emb(x, x, cos, sin)[0].transpose(1, 2)


def hf_5():
    check_close(positions.rotary(base=5000.0).heads(Q, POSITIONS), llama_rope(Q, rope_type="default"))


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
        check_close(positions.rotary(base=5000.0, scaling=scaling).heads(Q, POSITIONS), llama_rope(Q, **parameters))


def hf_7():
    jax_output, size = positions.rotary(base=5000.0, size=int(0.5 * H)).heads(Q, POSITIONS), H // 2
    check_close(jax_output[..., :size], llama_rope(Q[..., :size], size=size, rope_type="default"))
    check_close(jax_output[..., size:], Q[..., size:])


def hf_8():
    sin, cos = gptj.create_sinusoidal_positions(8, H)[POSITIONS][None].chunk(2, dim=-1)
    check_close(
        positions.rotary(style="interleaved").heads(Q, POSITIONS),
        gptj.apply_rotary_pos_emb(*tensors(Q), sin=sin, cos=cos),
    )


def hf_9():
    jax_output = attend_heads(SELF, KK, V, mods=(mods.soft_cap(0.6),), mask=masks.causal())
    mask = hf_masks.eager_mask(B, S, S)
    check_close(jax_output, eager(gemma2.eager_attention_forward, SELF, KK, V, mask, softcap=0.6))


def hf_10():
    hf_output = eager(gemma2.eager_attention_forward, Q, KK, V, scaling=144**-0.5)
    check_close(attend_heads(Q, KK, V, score=scores.scaled_dot(144**-0.5)), hf_output)


def hf_11():
    table = normal(32, N)
    buckets = T5Attention._relative_position_bucket(torch.arange(S)[None] - torch.arange(T)[:, None])
    bias = torch.tensor(table)[buckets].permute(2, 0, 1)[None]
    jax_output = attend_heads(Q, KK, V, score=scores.dot(), mods=(mods.relative(table.T),))
    check_close(jax_output, eager(llama.eager_attention_forward, Q, KK, V, bias, scaling=1.0))


def hf_12():
    alibi = build_alibi_tensor(torch.ones(B, S), N, torch.float32).reshape(B, N, 1, S)
    jax_output = attend_heads(SELF, KK, V, mods=(mods.alibi(positions.alibi_slopes(N)),), mask=masks.causal())
    check_close(jax_output, eager(llama.eager_attention_forward, SELF, KK, V, alibi + hf_masks.eager_mask(B, S, S)))


def hf_13():
    sinks = normal(N)
    hf_output = eager(gpt_oss.eager_attention_forward, Q, KK, V, module={"sinks": torch.tensor(sinks)})
    check_close(attend_heads(Q, KK, V, normalize=normalizers.softmax(sinks)), hf_output)


def hf_14():
    hf_output = eager(llama.eager_attention_forward, Q, FEW_K, FEW_V, groups=N // K)
    check_close(attend_heads(Q, FEW_K, FEW_V), hf_output)


def hf_15():
    cos, sin = torch.tensor(normal(2, 1, len(POSITIONS), H // 2)).repeat(1, 1, 1, 2)
    (x,) = tensors(np.swapaxes(Q, 1, 2))
    rope = positions.rotary_tables(cos[0, :, : H // 2].numpy(), sin[0, :, : H // 2].numpy())
    hf_output = llama.apply_rotary_pos_emb(x, x, cos, sin)[0].transpose(1, 2)
    check_close(rope.heads(Q, np.arange(len(POSITIONS))), hf_output)
