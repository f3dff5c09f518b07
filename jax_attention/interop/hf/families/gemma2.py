"""Gemma 2: norms on both sides, soft caps, every other layer with a window."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.gemma import FUNCTION, read_gemma, write_gemma
from jax_attention.interop.hf.families.shared import (
    check_divides,
    denominator_of,
    layer_types,
    llama_like,
    score_of,
    window_of,
    windows_of,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig

SANDWICH = {
    "attention_norm": "input_layernorm",
    "attention_after": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_after": "post_feedforward_layernorm",
}


def read_sandwich(fields: Fields, period: int, caps: tuple[float | None, float | None]) -> dict[str, Any]:
    """What Gemma 2 and 3 share; unless the config says otherwise, every `period`-th layer has no window."""
    for name in ("hidden_act", "sliding_window_size"):  # in published files, and never read
        fields.take(name, None)
    shared = read_gemma(fields, fields.first(("hidden_activation",), FUNCTION), kv_heads=4)
    usual = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(shared["depth"])]
    kinds, size = fields.first(("layer_types",), usual), fields.take("sliding_window", 4096)
    return shared | {
        "norm_place": "sandwich",
        "score": score_of(fields.take("query_pre_attn_scalar", 256)),
        "score_cap": fields.take("attn_logit_softcapping", caps[0]),
        "logit_cap": fields.take("final_logit_softcapping", caps[1]),
        "windows": windows_of(kinds, size),
    }


def write_sandwich(config: LMConfig) -> dict[str, Any]:
    """The inverse of `read_sandwich`."""
    check_divides(config)
    return write_gemma(config, "hidden_activation") | {
        "query_pre_attn_scalar": denominator_of(config),
        "attn_logit_softcapping": config.score_cap,
        "final_logit_softcapping": config.logit_cap,
        "sliding_window": window_of(config) or 4096,
        "layer_types": layer_types(config),
    }


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    fields.expect("cache_implementation", None, "hybrid")
    return LMConfig(**read_sandwich(fields, period=2, caps=(50.0, 30.0)))


entries = partial(llama_like, norms=SANDWICH, unit=1.0)
GEMMA2 = Family("gemma2", "Gemma2ForCausalLM", "model.", read, write_sandwich, entries)
