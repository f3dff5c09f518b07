"""GPT-NeoX and Pythia: attention and feed-forward in parallel; query, key and value packed head by head."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    PRE_NORMS,
    biased_layers,
    biased_places,
    linear,
    norm,
    plain_activation,
    size_fields,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.rope_fields import BASE, FRACTION, rope_from_parameters, rope_json
from jax_attention.interop.weight_mapping import WeightMapping, interleaved, same
from jax_attention.models import LMConfig

FEED_FORWARD = {"feed_forward.up": "mlp.dense_h_to_4h", "feed_forward.down": "mlp.dense_4h_to_h"}
NORM_PLACES = {True: "parallel", False: "pre"}
"""`use_parallel_residual` -> `norm_place`."""


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    width, num_heads = fields.take("hidden_size"), fields.take("num_attention_heads")
    context, rate = fields.take("max_position_embeddings", 2048), fields.take("hidden_dropout", 0.0)
    old = {BASE: fields.take("rotary_emb_base", 10000), FRACTION: fields.take("rotary_pct", 0.25)}
    new = {**(fields.take("rope_scaling", None) or {}), **(fields.take("rope_parameters", None) or {})}
    fields.expect("is_decoder", False, True)
    has_bias = fields.take("attention_bias", True)
    places = biased_places(qkv=has_bias, out=has_bias, feed_forward=True, norm=True)
    return LMConfig(
        vocab_size=fields.take("vocab_size"),
        context=context,
        width=width,
        depth=fields.take("num_hidden_layers"),
        num_heads=num_heads,
        ff_size=fields.take("intermediate_size"),
        activation=plain_activation(fields.take("hidden_act", "gelu")),
        position="rotary",
        rope=rope_from_parameters(old | new, width // num_heads, context, partial=True),
        norm_place=NORM_PLACES[fields.take("use_parallel_residual", True)],
        norm_epsilon=fields.take("layer_norm_eps", 1e-5),
        use_bias=True if has_bias else places,
        tied_head=fields.take("tie_word_embeddings", False),
        dropout=rate,
        attention_dropout=fields.take("attention_dropout", 0.0),
    )


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    rope = {"partial_rotary_factor": 1.0} | rope_json(config.rope, config.resolved_head_size)
    return size_fields(config) | {
        "rope_parameters": rope,
        "use_parallel_residual": config.norm_place == "parallel",
        "layer_norm_eps": config.norm_epsilon,
        "attention_bias": config.has_bias("qkv"),
        "tie_word_embeddings": config.tied_head,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
    }


def weight_mappings(config: LMConfig) -> list[WeightMapping]:
    """The table of all weights."""
    mappings = [
        same("embedding", "gpt_neox.embed_in.weight"),
        *norm("final_norm", "gpt_neox.final_layer_norm", bias=True),
    ]
    mapping = partial(interleaved, num_heads=config.num_heads)
    for layer in range(config.depth):
        jax_path, hf_path = f"blocks.rest.{layer}", f"gpt_neox.layers.{layer}"
        packed, qkv = f"{jax_path}.attention.projections.joined", f"{hf_path}.attention.query_key_value"
        mappings.append(mapping(f"{packed}.kernel", f"{qkv}.weight"))
        if config.has_bias("qkv"):
            mappings.append(mapping(f"{packed}.bias", f"{qkv}.bias"))
        mappings += linear(f"{jax_path}.attention.out", f"{hf_path}.attention.dense", config.has_bias("out"))
        mappings += biased_layers(jax_path, hf_path, FEED_FORWARD, PRE_NORMS)
    return mappings + ([] if config.tied_head else linear("head", "embed_out", bias=False))


BUFFERS = r"\.attention\.(masked_)?bias$|\.rotary_emb\.inv_freq$"
GPT_NEOX = Family(
    "gpt_neox", "GPTNeoXForCausalLM", "gpt_neox.", read, write, weight_mappings, BUFFERS, {"embed_out": "lm_head"}
)
