"""Gemma 1: scaled embeddings, gated tanh GELU, norm scales stored minus one."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    biased_places,
    llama_mappings,
    read_llama_fields,
    write_llama_fields,
)
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig

TANH_GELU = "gelu_pytorch_tanh"


def read_gemma(fields: ConfigFields, activation: str, kv_heads: int) -> dict[str, Any]:
    """The fields that all Gemmas share, as arguments of `LMConfig`."""
    fields.expect("use_bidirectional_attention", None, False)
    has_bias = fields.take("attention_bias", False)
    shared = read_llama_fields(fields, activation=activation, context=8192, head_size=256, kv_heads=kv_heads, tied=True)
    return shared | {"scale_embedding": True, "use_bias": biased_places(qkv=has_bias, out=has_bias)}


def write_gemma(config: LMConfig, activation: str) -> dict[str, Any]:
    """The inverse of `read_gemma`."""
    fields = write_llama_fields(config) | {"attention_bias": config.has_bias("qkv")}
    fields[activation] = fields.pop("hidden_act")
    if fields[activation] == "gelu_new":
        fields[activation] = TANH_GELU
    return fields


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face.

    Early files say "gelu" and mean the tanh form; transformers replaces it. It never reads `hidden_activation`.
    """
    fields.take("hidden_activation", None)
    name = fields.take_first(("hidden_act",), TANH_GELU)
    return LMConfig(**read_gemma(fields, TANH_GELU if name == "gelu" else name, kv_heads=16))


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_gemma(config, "hidden_act")


GEMMA = Family("gemma", "GemmaForCausalLM", "model.", read, write, partial(llama_mappings, scale_offset=1.0))
