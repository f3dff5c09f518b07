"""Llama 1, 2 and 3, and the families that change little of it: Mistral, Qwen 2 and 3, Phi 3, OLMo 2."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    PRE_NORMS,
    biased_places,
    gated_activation,
    layer_types,
    linear,
    norm,
    projections,
    size_fields,
    window_size,
    windows_from_layer_types,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.rope_fields import read_rope, rope_json
from jax_attention.interop.weight_mapping import WeightMapping, same, split
from jax_attention.models import LMConfig
from jax_attention.positions import Rotary, Scaling

# --- What the families share ------------------------------------------------------------------------------------------


def llama_mappings(
    config: LMConfig, norms: Mapping[str, str] = PRE_NORMS, scale_offset: float = 0.0, packed: bool = False
) -> list[WeightMapping]:
    """The table of a Llama or of one of its many children: other norms, other biases, packed projections."""
    mappings = [
        same("embedding", "model.embed_tokens.weight"),
        *norm("final_norm", "model.norm", scale_offset=scale_offset),
    ]
    for layer in range(config.depth):
        jax_path, hf_path = f"blocks.rest.{layer}", f"model.layers.{layer}"
        mappings += _attention(config, f"{jax_path}.attention", f"{hf_path}.self_attn", scale_offset, packed)
        mappings += _gated_mlp(config, f"{jax_path}.feed_forward", f"{hf_path}.mlp", packed)
        for jax_norm, hf_norm in norms.items():
            mappings += norm(f"{jax_path}.{jax_norm}", f"{hf_path}.{hf_norm}", scale_offset=scale_offset)
    return mappings + ([] if config.tied_head else linear("head", "lm_head", bias=False))


def _attention(config: LMConfig, jax_path: str, hf_path: str, scale_offset: float, packed: bool) -> list[WeightMapping]:
    mappings = linear(f"{jax_path}.out", f"{hf_path}.o_proj", config.has_bias("out"))
    if config.qk_norm:
        for name in ("query", "key"):
            mappings += norm(f"{jax_path}.{name}_norm", f"{hf_path}.{name[0]}_norm", scale_offset=scale_offset)
    has_bias = config.has_bias("qkv")
    if packed:
        return mappings + linear(f"{jax_path}.projections.joined", f"{hf_path}.qkv_proj", has_bias)
    return mappings + projections(config, jax_path, [f"{hf_path}.{x}_proj" for x in "qkv"], has_bias)


def _gated_mlp(config: LMConfig, jax_path: str, hf_path: str, packed: bool) -> list[WeightMapping]:
    has_bias, size = config.has_bias("feed_forward"), config.resolved_ff_size
    mappings = linear(f"{jax_path}.down", f"{hf_path}.down_proj", has_bias)
    if packed:
        kernels = [f"{jax_path}.gate.kernel", f"{jax_path}.up.kernel"]
        return [*mappings, split(kernels, f"{hf_path}.gate_up_proj.weight", [size] * 2)]
    for name in ("gate", "up"):
        mappings += linear(f"{jax_path}.{name}", f"{hf_path}.{name}_proj", has_bias)
    return mappings


def read_llama_fields(
    fields: ConfigFields,
    *,
    activation: str | None = None,
    context: int = 2048,
    head_size: int | None = None,
    kv_heads: int | None = None,
    epsilon: float = 1e-6,
    tied: bool = False,
    fraction: float | None = None,
) -> dict[str, Any]:
    """The fields that Llama-like families share, as arguments of `LMConfig`.

    Keyword arguments are the family's defaults for absent fields; None stands for Llama's. Only `activation` is one
    that the family has already read. `fraction` is that of `read_rope`.
    """
    width, num_heads = fields.take("hidden_size"), fields.take("num_attention_heads")
    head_size = fields.take_first(("head_dim",), head_size or width // num_heads)
    context = fields.take("max_position_embeddings", context)
    return {
        "vocab_size": fields.take("vocab_size"),
        "context": context,
        "width": width,
        "depth": fields.take("num_hidden_layers"),
        "num_heads": num_heads,
        "kv_heads": fields.take_first(("num_key_value_heads",), kv_heads or num_heads),
        "head_size": head_size,
        "ff_size": fields.take("intermediate_size"),
        "activation": gated_activation(activation or fields.take("hidden_act", "silu")),
        "position": "rotary",
        "rope": read_rope(fields, head_size, context, fraction=fraction),
        "norm": "rms",
        "norm_epsilon": fields.take("rms_norm_eps", epsilon),
        "use_bias": False,
        "tied_head": bool(fields.take("tie_word_embeddings", tied)),
        "attention_dropout": float(fields.take_first(("attention_dropout",), 0.0)),
    }


def check_heads_divide_width(config: LMConfig) -> None:
    """Refuse sizes that transformers rejects when it reads the configs of some families."""
    if config.width % config.num_heads:
        raise ValueError(f"num_heads: expected a divisor of width = {config.width}, got {config.num_heads}.")


def write_llama_fields(config: LMConfig) -> dict[str, Any]:
    """The inverse of `read_llama_fields`."""
    return size_fields(config) | {
        "num_key_value_heads": config.resolved_kv_heads,
        "head_dim": config.resolved_head_size,
        "rope_parameters": rope_json(config.rope, config.resolved_head_size),
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": config.attention_dropout,
    }


# --- Llama 1, 2 and 3: the family whose fields and weights most others extend -----------------------------------------


def read_llama(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    attention, feed_forward = fields.take("attention_bias", False), fields.take("mlp_bias", False)
    fields.expect("rope_interleaved", False)
    fields.ignore("is_llama_config")
    shared = read_llama_fields(fields)
    return LMConfig(**shared | {"use_bias": biased_places(qkv=attention, out=attention, feed_forward=feed_forward)})


def write_llama(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    check_heads_divide_width(config)
    places = {"attention_bias": "qkv", "mlp_bias": "feed_forward"}
    return write_llama_fields(config) | {name: config.has_bias(place) for name, place in places.items()}


LLAMA = Family("llama", "LlamaForCausalLM", "model.", read_llama, write_llama, llama_mappings)


# --- Mistral: Llama with a sliding window -----------------------------------------------------------------------------


def read_mistral(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    window = fields.take("sliding_window", 4096)
    return LMConfig(**read_llama_fields(fields, context=131072, kv_heads=8) | {"windows": (window,)})


def write_mistral(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | {"sliding_window": window_size(config)}


MISTRAL = Family("mistral", "MistralForCausalLM", "model.", read_mistral, write_mistral, llama_mappings)


# --- Qwen 2: Llama with biases on queries, keys and values, and windows in the upper layers ---------------------------


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


def read_qwen2(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("use_mrope", False)
    shared = read_llama_fields(fields, context=32768, kv_heads=32)
    return LMConfig(**shared | {"use_bias": ("qkv",), "windows": read_windows(fields, shared["depth"])})


def write_qwen2(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | write_windows(config)


QWEN2 = Family("qwen2", "Qwen2ForCausalLM", "model.", read_qwen2, write_qwen2, llama_mappings)


# --- Qwen 3: Llama with a norm over each query and key head -----------------------------------------------------------


def read_qwen3(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    shared = read_llama_fields(fields, context=32768, head_size=128, kv_heads=32)
    has_bias = fields.take("attention_bias", False)
    qwen = {
        "use_bias": biased_places(qkv=has_bias, out=has_bias),
        "qk_norm": True,
        "windows": read_windows(fields, shared["depth"]),
    }
    return LMConfig(**shared | qwen)


def write_qwen3(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | write_windows(config) | {"attention_bias": config.has_bias("qkv")}


QWEN3 = Family("qwen3", "Qwen3ForCausalLM", "model.", read_qwen3, write_qwen3, llama_mappings)


# --- Phi 3: Llama with packed projections; later versions rotate only a part of each head -----------------------------


def read_phi3(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.ignore("original_max_position_embeddings")  # read by longrope alone, which is refused
    for name in ("attention_bias", "mlp_bias", "lm_head_bias"):
        fields.expect(name, False)
    rate = fields.take_equal("resid_pdrop", "embd_pdrop", 0.0)
    shared = read_llama_fields(fields, epsilon=1e-5, context=4096, fraction=1.0)
    _check_unscaled(shared["rope"])
    return LMConfig(**shared | {"dropout": rate, "windows": (fields.take("sliding_window", None),)})


def _check_unscaled(rope: Rotary) -> None:
    """Refuse scaled rotary embeddings: Phi 3 has only longrope, with one factor per pair of features."""
    if rope.scaling != Scaling():
        raise ValueError(f"rope: expected no scaling in a phi3, got {rope.scaling!r}.")


def write_phi3(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    _check_unscaled(config.rope)
    rates = {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout}
    return write_llama_fields(config) | rates | {"sliding_window": window_size(config)}


PHI3 = Family("phi3", "Phi3ForCausalLM", "model.", read_phi3, write_phi3, partial(llama_mappings, packed=True))


# --- OLMo 2: norms after attention and feed-forward instead of before, and over all query and all key heads together --


POST_NORMS = {"attention_after": "post_attention_layernorm", "feed_forward_after": "post_feedforward_layernorm"}


def read_olmo2(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    has_bias = fields.take("attention_bias", False)
    olmo = {"norm_place": "after", "qk_norm": "all_heads", "use_bias": biased_places(qkv=has_bias, out=has_bias)}
    return LMConfig(**read_llama_fields(fields, epsilon=1e-5) | olmo)


def write_olmo2(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return write_llama_fields(config) | {"attention_bias": config.has_bias("qkv")}


OLMO2 = Family(
    "olmo2", "Olmo2ForCausalLM", "model.", read_olmo2, write_olmo2, partial(llama_mappings, norms=POST_NORMS)
)
