"""Phi 3: Llama with packed projections; later versions rotate only a part of each head."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import llama_mappings, read_llama_fields, window_size, write_llama_fields
from jax_attention.interop.hf.family import Family
from jax_attention.models import LMConfig
from jax_attention.positions import Rotary, Scaling


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.take("original_max_position_embeddings", None)  # read by longrope alone, which is refused
    for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
        fields.expect(name, False)
    rate = fields.take("resid_pdrop", 0.0)
    fields.expect("embd_pdrop", rate)
    shared = read_llama_fields(fields, epsilon=1e-5, context=4096, fraction=1.0)
    _check_unscaled(shared["rope"])
    return LMConfig(**shared | {"dropout": rate, "windows": (fields.take("sliding_window", None),)})


def _check_unscaled(rope: Rotary) -> None:
    """Refuse scaled rotary embeddings: Phi 3 has only longrope, with one factor per pair of features."""
    if rope.scaling != Scaling():
        raise ValueError(f"rope: expected no scaling in a phi3, got {rope.scaling!r}.")


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    _check_unscaled(config.rope)
    rates = {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout}
    return write_llama_fields(config) | rates | {"sliding_window": window_size(config)}


PHI3 = Family("phi3", "Phi3ForCausalLM", "model.", read, write, partial(llama_mappings, packed=True))
