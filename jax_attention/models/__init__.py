"""Transformer language models around the rules: a frozen config, and a model that is a plain pytree of parameters."""

from jax_attention.models.config import LMConfig
from jax_attention.models.config_json import config_from_json, config_to_json
from jax_attention.models.presets import PRESETS, gemma2, gpt2, llama, tiny
from jax_attention.models.pure import Pure, from_dict, pure, to_dict
from jax_attention.models.results import Capture, Captured, LMCache, LMOutput
from jax_attention.models.transformer import TransformerLM, create, scanned, unrolled

__all__ = [
    "Capture",
    "Captured",
    "LMCache",
    "LMConfig",
    "LMOutput",
    "PRESETS",
    "Pure",
    "TransformerLM",
    "config_from_json",
    "config_to_json",
    "create",
    "from_dict",
    "gemma2",
    "gpt2",
    "llama",
    "pure",
    "scanned",
    "tiny",
    "to_dict",
    "unrolled",
]
