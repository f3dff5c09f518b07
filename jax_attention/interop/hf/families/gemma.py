"""Gemma 1: scaled embeddings, gated tanh GELU, scales of norms kept less one."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import biases, llama_like, read_llama_like, write_llama_like
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig

FUNCTION = "gelu_pytorch_tanh"


def read_gemma(fields: Fields, activation: str, kv_heads: int) -> dict[str, Any]:
    """What all Gemmas share."""
    fields.expect("use_bidirectional_attention", None, False)
    biased = fields.take("attention_bias", False)
    shared = read_llama_like(fields, activation=activation, context=8192, head_size=256, kv_heads=kv_heads, tied=True)
    return shared | {"scale_embedding": True, "use_bias": biases(qkv=biased, out=biased)}


def write_gemma(config: LMConfig, activation: str) -> dict[str, Any]:
    """The inverse of `read_gemma`."""
    fields = write_llama_like(config) | {"attention_bias": config.has_bias("qkv")}
    fields[activation] = fields.pop("hidden_act")
    if fields[activation] == "gelu_new":
        fields[activation] = FUNCTION
    return fields


def read(fields: Fields) -> LMConfig:
    """Their fields as our config. Early files say "gelu" and mean the tanh form, which transformers puts in its place;
    `hidden_activation` it never reads.
    """
    fields.take("hidden_activation", None)
    name = fields.first(("hidden_act",), FUNCTION)
    return LMConfig(**read_gemma(fields, FUNCTION if name == "gelu" else name, kv_heads=16))


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return write_gemma(config, "hidden_act")


GEMMA = Family("gemma", "GemmaForCausalLM", "model.", read, write, partial(llama_like, unit=1.0))
