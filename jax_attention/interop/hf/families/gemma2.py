"""Gemma 2: norms before and after each layer, soft caps, a window in every other layer."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.gemma import TANH_GELU, read_gemma, write_gemma
from jax_attention.interop.hf.families.shared import (
    check_heads_divide_width,
    layer_types,
    llama_mappings,
    score_denominator,
    score_from_denominator,
    window_size,
    windows_from_layer_types,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig

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
    for name in ("hidden_act", "sliding_window_size"):  # in published files; transformers never reads them
        fields.take(name, None)
    shared = read_gemma(fields, fields.take_first(("hidden_activation",), TANH_GELU), kv_heads=4)
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
    return write_gemma(config, "hidden_activation") | {
        "query_pre_attn_scalar": score_denominator(config),
        "attn_logit_softcapping": config.score_cap,
        "final_logit_softcapping": config.logit_cap,
        "sliding_window": window_size(config) or 4096,
        "layer_types": layer_types(config),
    }


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("cache_implementation", None, "hybrid")
    return LMConfig(**read_sandwich(fields, period=2, caps=(50.0, 30.0)))


weight_mappings = partial(llama_mappings, norms=SANDWICH, scale_offset=1.0)
GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", "model.", read, write_sandwich, weight_mappings)
