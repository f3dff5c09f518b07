"""Mistral: Llama with a sliding window."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import llama_mappings, read_llama_fields, window_size, write_llama_fields
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    window = fields.take("sliding_window", 4096)
    return LMConfig(**read_llama_fields(fields, context=131072, kv_heads=8) | {"windows": (window,)})


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | {"sliding_window": window_size(config)}


MISTRAL = Family("mistral", "MistralForCausalLM", "model.", read, write, llama_mappings)
