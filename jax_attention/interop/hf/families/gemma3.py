"""Gemma 3, the language model alone: norms on heads, five windows to one full layer, each with its own rotary base."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.gemma2 import entries, read_sandwich, write_sandwich
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.rope_fields import one_rope, rope_json
from jax_attention.models import LMConfig

GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    fields.expect("cache_implementation", None, "hybrid")
    # transformers never reads the one with the underscore, and has the cap on scores only in name.
    for name in ("_sliding_window_pattern", "attn_logit_softcapping"):
        fields.take(name, None)
    period = fields.first(("sliding_window_pattern",), 6)
    context = fields.take("max_position_embeddings", 131072)
    given, scaling = fields.first(("rope_parameters",), {}), fields.take("rope_scaling", None) or {}
    whole, local = (given[GLOBAL], given.get(LOCAL, {})) if GLOBAL in given else (given, {})
    ropes = {
        GLOBAL: {"rope_theta": fields.take("rope_theta", 1e6), **whole, **scaling},
        LOCAL: {"rope_theta": fields.take("rope_local_base_freq", 1e4), **local},
    }
    read_here = ("rope_parameters", "rope_scaling", "rope_theta", "attn_logit_softcapping")
    shared = read_sandwich(fields.without(*read_here), period, caps=(None, None))
    turn = {kind: one_rope(rope, shared["head_size"], context) for kind, rope in ropes.items()}
    own = {"context": context, "qk_norm": True, "rope": turn[GLOBAL], "local_rope": turn[LOCAL]}
    return LMConfig(**shared | own)


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    size, local = config.resolved_head_size, config.local_rope or config.rope
    for rope in (config.rope, local):
        if not getattr(rope.scaling, "truncate", True):
            raise ValueError("rope: expected YaRN with a truncated ramp: transformers loses the field in nested ropes.")
    ropes = {GLOBAL: rope_json(config.rope, size), LOCAL: rope_json(local, size)}
    return write_sandwich(config) | {"rope_parameters": ropes, "attn_logit_softcapping": None}


GEMMA3 = Family("gemma3_text", "Gemma3ForCausalLM", "model.", read, write, entries)
