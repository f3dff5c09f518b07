"""Llama 1, 2 and 3: the family whose fields and weights most others extend."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    biased_places,
    check_heads_divide_width,
    llama_mappings,
    read_llama_fields,
    write_llama_fields,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    attention, feed_forward = fields.take("attention_bias", False), fields.take("mlp_bias", False)
    fields.expect("rope_interleaved", False)
    fields.take("is_llama_config", None)
    shared = read_llama_fields(fields)
    return LMConfig(**shared | {"use_bias": biased_places(qkv=attention, out=attention, feed_forward=feed_forward)})


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    check_heads_divide_width(config)
    places = {"attention_bias": "qkv", "mlp_bias": "feed_forward"}
    return write_llama_fields(config) | {name: config.has_bias(place) for name, place in places.items()}


LLAMA = Family("llama", "LlamaForCausalLM", "model.", read, write, llama_mappings)
