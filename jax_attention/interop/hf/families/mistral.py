"""Mistral: Llama with a window."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import llama_like, read_llama_like, window_of, write_llama_like
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    window = fields.take("sliding_window", 4096)
    return LMConfig(**read_llama_like(fields, context=131072, kv_heads=8) | {"windows": (window,)})


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return write_llama_like(config) | {"sliding_window": window_of(config)}


MISTRAL = Family("mistral", "MistralForCausalLM", "model.", read, write, llama_like)
