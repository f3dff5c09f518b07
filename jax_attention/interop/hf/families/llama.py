"""Llama 1, 2 and 3."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import (
    biases,
    check_divides,
    llama_like,
    read_llama_like,
    write_llama_like,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    attention, feed_forward = fields.take("attention_bias", False), fields.take("mlp_bias", False)
    fields.expect("rope_interleaved", False)
    fields.take("is_llama_config", None)
    shared = read_llama_like(fields)
    return LMConfig(**shared | {"use_bias": biases(qkv=attention, out=attention, feed_forward=feed_forward)})


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    check_divides(config)
    places = {"attention_bias": "qkv", "mlp_bias": "feed_forward"}
    return write_llama_like(config) | {name: config.has_bias(place) for name, place in places.items()}


LLAMA = Family("llama", "LlamaForCausalLM", "model.", read, write, llama_like)
