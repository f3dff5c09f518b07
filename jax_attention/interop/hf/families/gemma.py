"""Gemma 1, 2 and 3 (text): Llama with scaled embeddings and norm scales stored minus one."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.llama import (
    check_heads_divide_width,
    llama_mappings,
    read_llama_fields,
    write_llama_fields,
)
from jax_attention.interop.hf.families.shared import (
    biased_places,
    layer_types,
    score_denominator,
    score_from_denominator,
    window_size,
    windows_from_layer_types,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.rope_fields import rope_from_parameters, rope_json
from jax_attention.models import LMConfig

# --- Gemma 1: scaled embeddings, gated tanh GELU, norm scales stored minus one ----------------------------------------


TANH_GELU = "gelu_pytorch_tanh"


def read_shared(fields: ConfigFields, activation: str, kv_heads: int) -> dict[str, Any]:
    """The fields that all Gemmas share, as arguments of `LMConfig`."""
    fields.expect("use_bidirectional_attention", None, False)
    has_bias = fields.take("attention_bias", False)
    shared = read_llama_fields(fields, activation=activation, context=8192, head_size=256, kv_heads=kv_heads, tied=True)
    return shared | {"scale_embedding": True, "use_bias": biased_places(qkv=has_bias, out=has_bias)}


def write_shared(config: LMConfig, activation: str) -> dict[str, Any]:
    """The inverse of `read_shared`."""
    fields = write_llama_fields(config) | {"attention_bias": config.has_bias("qkv")}
    fields[activation] = fields.pop("hidden_act")
    if fields[activation] == "gelu_new":
        fields[activation] = TANH_GELU
    return fields


def read_gemma(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face.

    Early files say "gelu" and mean the tanh form; transformers replaces it. It never reads `hidden_activation`.
    """
    fields.ignore("hidden_activation")
    name = fields.take_first(("hidden_act",), TANH_GELU)
    return LMConfig(**read_shared(fields, TANH_GELU if name == "gelu" else name, kv_heads=16))


def write_gemma(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_shared(config, "hidden_act")


GEMMA = Family(
    "gemma", "GemmaForCausalLM", "model.", read_gemma, write_gemma, partial(llama_mappings, scale_offset=1.0)
)


# --- Gemma 2: norms before and after each layer, soft caps, a window in every other layer -----------------------------


SANDWICH = {
    "attention_norm": "input_layernorm",
    "attention_after": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_after": "post_feedforward_layernorm",
}


def read_sandwich(fields: ConfigFields, period: int, caps: tuple[float | None, float | None]) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 share, as arguments of `LMConfig`.

    Without `layer_types`, every `period`-th layer has no window.
    """
    fields.ignore("hidden_act", "sliding_window_size")  # in published files; transformers never reads them
    shared = read_shared(fields, fields.take_first(("hidden_activation",), TANH_GELU), kv_heads=4)
    default = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(shared["depth"])]
    types, size = fields.take_first(("layer_types",), default), fields.take("sliding_window", 4096)
    return shared | {
        "norm_place": "sandwich",
        "score": score_from_denominator(fields.take("query_pre_attn_scalar", 256)),
        "score_cap": fields.take("attn_logit_softcapping", caps[0]),
        "logit_cap": fields.take("final_logit_softcapping", caps[1]),
        "windows": windows_from_layer_types(types, size),
    }


def write_sandwich(config: LMConfig) -> dict[str, Any]:
    """The inverse of `read_sandwich`."""
    check_heads_divide_width(config)
    return write_shared(config, "hidden_activation") | {
        "query_pre_attn_scalar": score_denominator(config),
        "attn_logit_softcapping": config.score_cap,
        "final_logit_softcapping": config.logit_cap,
        "sliding_window": window_size(config) or 4096,
        "layer_types": layer_types(config),
    }


def read_gemma2(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("cache_implementation", None, "hybrid")
    return LMConfig(**read_sandwich(fields, period=2, caps=(50.0, 30.0)))


sandwich_mappings = partial(llama_mappings, norms=SANDWICH, scale_offset=1.0)
GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", "model.", read_gemma2, write_sandwich, sandwich_mappings)


# --- Gemma 3 (text): norms on heads; five layers with a window to each full one, and a rotary base for either kind ----


GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read_gemma3(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("cache_implementation", None, "hybrid")
    # transformers never reads the field with the underscore, and stores a cap on scores that it does not apply.
    fields.ignore("_sliding_window_pattern", "attn_logit_softcapping")
    period = fields.take_first(("sliding_window_pattern",), 6)
    context = fields.take("max_position_embeddings", 131072)
    scaling = fields.take("rope_scaling", None) or {}
    nested = ConfigFields(fields.take_first(("rope_parameters",), {}), fields.file)
    full, local = nested.take(GLOBAL, None), nested.take(LOCAL, None) or {}
    full = nested.values if full is None else full
    parameters = {
        GLOBAL: {"rope_theta": fields.take("rope_theta", 1e6), **full, **scaling},
        LOCAL: {"rope_theta": fields.take("rope_local_base_freq", 1e4), **local},
    }
    read_here = ("rope_parameters", "rope_scaling", "rope_theta", "attn_logit_softcapping")
    shared = read_sandwich(fields.without(*read_here), period, caps=(None, None))
    ropes = {name: rope_from_parameters(x, shared["head_size"], context) for name, x in parameters.items()}
    gemma3 = {"context": context, "qk_norm": True, "rope": ropes[GLOBAL], "local_rope": ropes[LOCAL]}
    return LMConfig(**shared | gemma3)


def write_gemma3(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    size, local = config.resolved_head_size, config.local_rope or config.rope
    for rope in (config.rope, local):
        if not getattr(rope.scaling, "truncate", True):
            raise ValueError("rope: expected YaRN with a truncated ramp: transformers loses the field in nested ropes.")
    ropes = {GLOBAL: rope_json(config.rope, size), LOCAL: rope_json(local, size)}
    return write_sandwich(config) | {"rope_parameters": ropes, "attn_logit_softcapping": None}


GEMMA3 = Family("gemma3_text", "Gemma3ForCausalLM", "model.", read_gemma3, write_gemma3, sandwich_mappings)
