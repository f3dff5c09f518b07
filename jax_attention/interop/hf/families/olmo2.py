"""OLMo 2: norms after attention and feed-forward instead of before, and over all query and all key heads together."""

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

POST_NORMS = {"attention_after": "post_attention_layernorm", "feed_forward_after": "post_feedforward_layernorm"}


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    has_bias = fields.take("attention_bias", False)
    olmo = {"norm_place": "after", "qk_norm": "all_heads", "use_bias": biased_places(qkv=has_bias, out=has_bias)}
    return LMConfig(**read_llama_fields(fields, epsilon=1e-5) | olmo)


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | {"attention_bias": config.has_bias("qkv")}


OLMO2 = Family("olmo2", "Olmo2ForCausalLM", "model.", read, write, partial(llama_mappings, norms=POST_NORMS))
