"""Gemma 3 (text): norms on heads; five layers with a window to each full one, and a rotary base for either kind."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.gemma2 import read_sandwich, weight_mappings, write_sandwich
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.rope_fields import rope_from_parameters, rope_json
from jax_attention.models import LMConfig

GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("cache_implementation", None, "hybrid")
    # transformers never reads the field with the underscore, and stores a cap on scores that it does not apply.
    for name in ("_sliding_window_pattern", "attn_logit_softcapping"):
        fields.take(name, None)
    period = fields.take_first(("sliding_window_pattern",), 6)
    context = fields.take("max_position_embeddings", 131072)
    nested, scaling = fields.take_first(("rope_parameters",), {}), fields.take("rope_scaling", None) or {}
    full, local = (nested[GLOBAL], nested.get(LOCAL, {})) if GLOBAL in nested else (nested, {})
    parameters = {
        GLOBAL: {"rope_theta": fields.take("rope_theta", 1e6), **full, **scaling},
        LOCAL: {"rope_theta": fields.take("rope_local_base_freq", 1e4), **local},
    }
    read_here = ("rope_parameters", "rope_scaling", "rope_theta", "attn_logit_softcapping")
    shared = read_sandwich(fields.without(*read_here), period, caps=(None, None))
    ropes = {name: rope_from_parameters(x, shared["head_size"], context) for name, x in parameters.items()}
    gemma3 = {"context": context, "qk_norm": True, "rope": ropes[GLOBAL], "local_rope": ropes[LOCAL]}
    return LMConfig(**shared | gemma3)


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    size, local = config.resolved_head_size, config.local_rope or config.rope
    for rope in (config.rope, local):
        if not getattr(rope.scaling, "truncate", True):
            raise ValueError("rope: expected YaRN with a truncated ramp: transformers loses the field in nested ropes.")
    ropes = {GLOBAL: rope_json(config.rope, size), LOCAL: rope_json(local, size)}
    return write_sandwich(config) | {"rope_parameters": ropes, "attn_logit_softcapping": None}


GEMMA3 = Family("gemma3_text", "Gemma3ForCausalLM", "model.", read, write, weight_mappings)
