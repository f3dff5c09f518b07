"""Phi 3: Llama with packed projections, and rotary embeddings of a part of each head in later versions."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.families.parts import llama_like, read_llama_like, window_of, write_llama_like
from jax_attention.interop.family import Family
from jax_attention.interop.fields import Fields
from jax_attention.models import LMConfig


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    original = fields.take("original_max_position_embeddings", None)
    rate = fields.take("resid_pdrop", 0.0)
    fields.expect("embd_pdrop", rate)
    shared = read_llama_like(fields, epsilon=1e-5, context=4096, part=1.0)
    scaling = shared["rope"].scaling
    if original is not None and getattr(scaling, "original_length", original) != original:
        raise ValueError(
            f"config.json: expected original_max_position_embeddings = {scaling.original_length}, as the rotary "
            f"scaling has it, got {original}."
        )
    return LMConfig(**shared | {"dropout": rate, "windows": (fields.take("sliding_window", None),)})


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    rates = {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout}
    return write_llama_like(config) | rates | {"sliding_window": window_of(config)}


PHI3 = Family("phi3", "Phi3ForCausalLM", "model.", read, write, partial(llama_like, packed=True))
