"""Whole models against Hugging Face transformers: random weights, copied by hand, logits and gradients of every weight.

Logits are of order one and two layers deep, every product has fewer than 64 terms, so the table's float32 tolerances
(64 roundings) hold as they do for one layer; gradients are compared relative to the largest entry of their array.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from jax_attention import models, positions, scores
from tests.models import small
from tests.tolerances import FORWARD, GRADIENT

V, D, N, K, H, F, LAYERS, T = 19, 16, 4, 2, 6, 24, 2, 11
SHARED = {"vocab_size": V, "use_cache": False, "attn_implementation": "eager", "bos_token_id": 0, "eos_token_id": 0}
GROUPED = {
    **SHARED,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": N,
    "num_key_value_heads": K,
    "max_position_embeddings": 32,
    "pad_token_id": None,
}
TOKENS = np.random.default_rng(0).integers(0, V, (2, T))
TARGETS = np.random.default_rng(1).integers(0, V, (2, T))


def from_gpt2(w):
    """Their kernels are `[in, out]` already, query, key and value in one."""

    def block(i):
        own = lambda name: w[f"transformer.h.{i}.{name}"]  # noqa: E731
        linear = lambda name: {"kernel": own(f"{name}.weight"), "bias": own(f"{name}.bias")}  # noqa: E731
        norm = lambda name: {"scale": own(f"{name}.weight"), "bias": own(f"{name}.bias")}  # noqa: E731
        return {
            "attention": {"projections": {"joined": linear("attn.c_attn")}, "out": linear("attn.c_proj")},
            "feed_forward": {"up": linear("mlp.c_fc"), "down": linear("mlp.c_proj")},
            "attention_norm": norm("ln_1"),
            "feed_forward_norm": norm("ln_2"),
        }

    return {
        "embedding": w["transformer.wte.weight"],
        "position": w["transformer.wpe.weight"],
        "blocks": {"rest": {str(i): block(i) for i in range(LAYERS)}},
        "final_norm": {"scale": w["transformer.ln_f.weight"], "bias": w["transformer.ln_f.bias"]},
    }


PRE = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
SANDWICH = {
    "attention_norm": "input_layernorm",
    "attention_after": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_after": "post_feedforward_layernorm",
}


def from_llama(w, norms=PRE, tied=False, unit=0.0):
    """Their kernels are `[out, in]`; Gemma keeps the norm's scale less one (`unit`, which a gradient does not have)."""

    def block(i):
        own = lambda name: w[f"model.layers.{i}.{name}.weight"]  # noqa: E731
        attention = {
            "projections": {"joined": {"kernel": np.concatenate([own(f"self_attn.{x}_proj").T for x in "qkv"], 1)}},
            "out": {"kernel": own("self_attn.o_proj").T},
        }
        if f"model.layers.{i}.self_attn.q_norm.weight" in w:
            attention |= {f"{long}_norm": {"scale": own(f"self_attn.{long[0]}_norm")} for long in ("query", "key")}
        names = ("gate", "up", "down")
        return {
            "attention": attention,
            "feed_forward": {name: {"kernel": own(f"mlp.{name}_proj").T} for name in names},
        } | {name: {"scale": own(theirs) + unit} for name, theirs in norms.items()}

    return {
        "embedding": w["model.embed_tokens.weight"],
        "blocks": {"rest": {str(i): block(i) for i in range(LAYERS)}},
        "final_norm": {"scale": w["model.norm.weight"] + unit},
    } | ({} if tied else {"head": {"kernel": w["lm_head.weight"].T}})


def grouped(preset, **changes):
    sizes = {"vocab_size": V, "context": 32, "width": D, "depth": LAYERS, "num_heads": N, "kv_heads": K, "ff_size": F}
    return preset(**sizes | {"scan": False} | changes)


def rope(base, **extra):
    return {"rope_theta": base, "rope_type": "default", **extra}


LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "gpt2": lambda: (
        GPT2LMHeadModel(GPT2Config(**SHARED, n_embd=D, n_layer=LAYERS, n_head=N, n_positions=16)),
        models.gpt2(vocab_size=V, context=16, width=D, depth=LAYERS, num_heads=N, scan=False),
        from_gpt2,
        0.0,
    ),
    "llama": lambda: (
        LlamaForCausalLM(LlamaConfig(**GROUPED, rms_norm_eps=1e-5, rope_parameters=rope(500000.0))),
        grouped(models.llama),
        from_llama,
        0.0,
    ),
    "llama 3.2, tied, scaled frequencies, other head size": lambda: (
        LlamaForCausalLM(
            LlamaConfig(
                **GROUPED,
                rms_norm_eps=1e-5,
                head_dim=H,
                tie_word_embeddings=True,
                rope_parameters=rope(10000.0, **LLAMA3) | {"rope_type": "llama3"},
            )
        ),
        grouped(
            models.llama,
            head_size=H,
            tied_head=True,
            rope=positions.rotary(base=10000.0, scaling=positions.llama3_scaling(4.0, 1.0, 4.0, 16)),
        ),
        partial(from_llama, tied=True),
        0.0,
    ),
    "qwen3, norms on heads": lambda: (
        Qwen3ForCausalLM(Qwen3Config(**GROUPED, rms_norm_eps=1e-6, head_dim=H, rope_parameters=rope(10000.0))),
        grouped(models.llama, head_size=H, qk_norm=True, norm_epsilon=1e-6, rope=positions.rotary()),
        from_llama,
        0.0,
    ),
    "gemma2, windows and caps": lambda: (
        Gemma2ForCausalLM(
            Gemma2Config(
                **GROUPED,
                head_dim=H,
                sliding_window=4,
                query_pre_attn_scalar=9,
                attn_logit_softcapping=1.5,
                final_logit_softcapping=3.0,
                rope_parameters=rope(10000.0),
            )
        ),
        grouped(
            models.gemma2,
            head_size=H,
            windows=(4, None),
            score=scores.scaled_dot(scale=1 / 3),
            score_cap=1.5,
            logit_cap=3.0,
        ),
        partial(from_llama, norms=SANDWICH, tied=True),
        1.0,
    ),
}


def randomised(theirs):
    """Every weight random and of an order that matters: norms and biases too."""
    rng = np.random.default_rng(2)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            scale = 0.3 if weight.ndim == 1 else 0.7 if "emb" in name or "wte" in name else weight.shape[-1] ** -0.5
            offset = 1.0 if "norm" in name and weight.detach().abs().min() > 0.5 else 0.0
            numbers = offset + scale * rng.standard_normal(weight.shape)
            weight.copy_(torch.from_numpy(numbers.astype(np.float32)))
    return theirs.eval()


@pytest.mark.parametrize("name", CASES)
def test_logits_and_gradients(name):
    """Field note 11: is 1e-3 a bug? Here it would be."""
    theirs, config, convert, unit = CASES[name]()
    theirs = randomised(theirs)
    logits = theirs(torch.from_numpy(TOKENS)).logits
    torch.nn.functional.cross_entropy(logits.reshape(-1, V), torch.from_numpy(TARGETS).reshape(-1)).backward()
    weights = {name: x.detach().numpy() for name, x in theirs.named_parameters()}
    gradients = {name: x.grad.numpy() for name, x in theirs.named_parameters()}

    def loss(model):
        ours = model(jnp.asarray(TOKENS)).logits
        picked = jnp.take_along_axis(jax.nn.log_softmax(ours), jnp.asarray(TARGETS)[..., None], axis=-1)
        return -picked.mean(), ours

    model = models.from_dict(config, convert(weights, unit=unit) if unit else convert(weights))
    (_, ours), gradient = small.jit(jax.value_and_grad(loss, has_aux=True))(model)
    logits = logits.detach().numpy()
    assert logits.std() > 0.3
    np.testing.assert_allclose(ours, logits, rtol=FORWARD["float32"], atol=FORWARD["float32"])
    expected = convert(gradients)
    found = models.to_dict(gradient)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        largest = np.abs(y).max()
        assert largest > 0
        np.testing.assert_allclose(x, y, rtol=0, atol=GRADIENT["float32"] * largest, err_msg=jax.tree_util.keystr(path))
