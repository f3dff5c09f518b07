"""Qwen 2: Llama with biases on queries, keys and values, and windows in the upper layers."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import (
    layer_types,
    llama_like,
    read_llama_like,
    window_of,
    windows_of,
    write_llama_like,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def windows(fields: Fields, depth: int) -> tuple[int | None, ...]:
    """No windows unless `use_sliding_window`; then from layer `max_window_layers` on, or as `layer_types` says."""
    used, size = fields.take("use_sliding_window", False), fields.take("sliding_window", 4096)
    first = fields.take("max_window_layers", 28)
    usual = ["sliding_attention" if used and layer >= first else "full_attention" for layer in range(depth)]
    kinds = fields.first(("layer_types",), usual)
    return windows_of(kinds, size if used else None)


def windows_json(config: LMConfig) -> dict[str, Any]:
    """The inverse of `windows`."""
    size = window_of(config)
    return {"use_sliding_window": size is not None, "sliding_window": size, "layer_types": layer_types(config)}


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    fields.expect("use_mrope", False)
    shared = read_llama_like(fields, context=32768, kv_heads=32)
    return LMConfig(**shared | {"use_bias": ("qkv",), "windows": windows(fields, shared["depth"])})


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return write_llama_like(config) | windows_json(config)


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", "model.", read, write, llama_like)
