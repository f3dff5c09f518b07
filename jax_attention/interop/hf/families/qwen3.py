"""Qwen 3: Llama with a norm over each query and key head."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.qwen2 import windows, windows_json
from jax_attention.interop.hf.families.shared import biases, llama_like, read_llama_like, write_llama_like
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    shared = read_llama_like(fields, context=32768, head_size=128, kv_heads=32)
    biased = fields.take("attention_bias", False)
    own = {"use_bias": biases(qkv=biased, out=biased), "qk_norm": True, "windows": windows(fields, shared["depth"])}
    return LMConfig(**shared | own)


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return write_llama_like(config) | windows_json(config) | {"attention_bias": config.has_bias("qkv")}


QWEN3 = Family("qwen3", "Qwen3ForCausalLM", "model.", read, write, llama_like)
