"""Qwen 2: Llama with biases on queries, keys and values, and windows in the upper layers."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    layer_types,
    llama_mappings,
    read_llama_fields,
    window_size,
    windows_from_layer_types,
    write_llama_fields,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig


def read_windows(fields: ConfigFields, depth: int) -> tuple[int | None, ...]:
    """The windows of the layers: none unless `use_sliding_window`; then those of `layer_types`, or without that field
    one in every layer from `max_window_layers` on.
    """
    is_used, size = fields.take("use_sliding_window", False), fields.take("sliding_window", 4096)
    first = fields.take("max_window_layers", 28)
    default = ["sliding_attention" if is_used and layer >= first else "full_attention" for layer in range(depth)]
    types = fields.take_first(("layer_types",), default)
    return windows_from_layer_types(types, size if is_used else None)


def write_windows(config: LMConfig) -> dict[str, Any]:
    """The inverse of `read_windows`."""
    size = window_size(config)
    return {"use_sliding_window": size is not None, "sliding_window": size, "layer_types": layer_types(config)}


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("use_mrope", False)
    shared = read_llama_fields(fields, context=32768, kv_heads=32)
    return LMConfig(**shared | {"use_bias": ("qkv",), "windows": read_windows(fields, shared["depth"])})


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | write_windows(config)


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", "model.", read, write, llama_mappings)
