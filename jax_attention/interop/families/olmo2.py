"""OLMo 2: norms only over what is added, and over all queries and all keys together."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.families.parts import biases, llama_like, read_llama_like, write_llama_like
from jax_attention.interop.family import Family
from jax_attention.interop.fields import Fields
from jax_attention.models import LMConfig

AFTER = {"attention_after": "post_attention_layernorm", "feed_forward_after": "post_feedforward_layernorm"}


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    biased = fields.take("attention_bias", False)
    own = {"norm_place": "after", "qk_norm": "all_heads", "use_bias": biases(qkv=biased, out=biased)}
    return LMConfig(**read_llama_like(fields, epsilon=1e-5) | own)


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return write_llama_like(config) | {"attention_bias": config.has_bias("qkv")}


OLMO2 = Family("olmo2", "Olmo2ForCausalLM", "model.", read, write, partial(llama_like, norms=AFTER))
