"""Qwen 3: Llama with a norm over each query and key head."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.qwen2 import read_windows, write_windows
from jax_attention.interop.hf.families.shared import (
    biased_places,
    llama_mappings,
    read_llama_fields,
    write_llama_fields,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    shared = read_llama_fields(fields, context=32768, head_size=128, kv_heads=32)
    has_bias = fields.take("attention_bias", False)
    qwen = {
        "use_bias": biased_places(qkv=has_bias, out=has_bias),
        "qk_norm": True,
        "windows": read_windows(fields, shared["depth"]),
    }
    return LMConfig(**shared | qwen)


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | write_windows(config) | {"attention_bias": config.has_bias("qkv")}


QWEN3 = Family("qwen3", "Qwen3ForCausalLM", "model.", read, write, llama_mappings)
