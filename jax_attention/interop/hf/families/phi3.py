"""Phi 3: Llama with packed projections, and rotary embeddings of a part of each head in later versions."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import llama_like, read_llama_like, window_of, write_llama_like
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig
from jax_attention.positions import Rotary, Scaling


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    fields.take("original_max_position_embeddings", None)  # for longrope alone
    for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
        fields.expect(name, False)
    rate = fields.take("resid_pdrop", 0.0)
    fields.expect("embd_pdrop", rate)
    shared = read_llama_like(fields, epsilon=1e-5, context=4096, part=1.0)
    _check(shared["rope"])
    return LMConfig(**shared | {"dropout": rate, "windows": (fields.take("sliding_window", None),)})


def _check(rope: Rotary) -> None:
    """The model knows no scaling but longrope, which takes one factor for each pair of features."""
    if rope.scaling != Scaling():
        raise ValueError(f"rope: expected no scaling in a phi3, got {rope.scaling!r}.")


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    _check(config.rope)
    rates = {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout}
    return write_llama_like(config) | rates | {"sliding_window": window_of(config)}


PHI3 = Family("phi3", "Phi3ForCausalLM", "model.", read, write, partial(llama_like, packed=True))
