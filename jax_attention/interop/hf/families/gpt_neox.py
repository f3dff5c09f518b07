"""GPT-NeoX and Pythia: both halves of a block read its input; query, key and value are packed head by head."""

from __future__ import annotations

from functools import partial
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import PRE, biased, biases, linear, norm, plain, sizes_json
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.rope_fields import BASE, PART, one_rope, rope_json
from jax_attention.interop.weight_mapping import Entry, head_by_head, same
from jax_attention.models import LMConfig

FEED_FORWARD = {"feed_forward.up": "mlp.dense_h_to_4h", "feed_forward.down": "mlp.dense_4h_to_h"}
PLACES = {True: "parallel", False: "pre"}


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    width, num_heads = fields.take("hidden_size"), fields.take("num_attention_heads")
    context, rate = fields.take("max_position_embeddings", 2048), fields.take("hidden_dropout", 0.0)
    usual = {BASE: fields.take("rotary_emb_base", 10000), PART: fields.take("rotary_pct", 0.25)}
    given = {**(fields.take("rope_scaling", None) or {}), **(fields.take("rope_parameters", None) or {})}
    fields.expect("is_decoder", False, True)
    biased = fields.take("attention_bias", True)
    every = biases(qkv=biased, out=biased, feed_forward=True, norm=True)
    return LMConfig(
        vocab_size=fields.take("vocab_size"),
        context=context,
        width=width,
        depth=fields.take("num_hidden_layers"),
        num_heads=num_heads,
        ff_size=fields.take("intermediate_size"),
        activation=plain(fields.take("hidden_act", "gelu")),
        position="rotary",
        rope=one_rope(usual | given, width // num_heads, context, partial=True),
        norm_place=PLACES[fields.take("use_parallel_residual", True)],
        norm_epsilon=fields.take("layer_norm_eps", 1e-5),
        use_bias=True if biased else every,
        tied_head=fields.take("tie_word_embeddings", False),
        dropout=rate,
        attention_dropout=fields.take("attention_dropout", 0.0),
    )


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    rope = {"partial_rotary_factor": 1.0} | rope_json(config.rope, config.resolved_head_size)
    return sizes_json(config) | {
        "rope_parameters": rope,
        "use_parallel_residual": config.norm_place == "parallel",
        "layer_norm_eps": config.norm_epsilon,
        "attention_bias": config.has_bias("qkv"),
        "tie_word_embeddings": config.tied_head,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
    }


def entries(config: LMConfig) -> list[Entry]:
    """The table."""
    found = [same("embedding", "gpt_neox.embed_in.weight"), *norm("final_norm", "gpt_neox.final_layer_norm", bias=True)]
    packed = partial(head_by_head, num_heads=config.num_heads)
    for layer in range(config.depth):
        ours, theirs = f"blocks.rest.{layer}", f"gpt_neox.layers.{layer}"
        joint, qkv = f"{ours}.attention.projections.joined", f"{theirs}.attention.query_key_value"
        found.append(packed(f"{joint}.kernel", f"{qkv}.weight"))
        if config.has_bias("qkv"):
            found.append(packed(f"{joint}.bias", f"{qkv}.bias"))
        found += linear(f"{ours}.attention.out", f"{theirs}.attention.dense", config.has_bias("out"))
        found += biased(ours, theirs, FEED_FORWARD, PRE)
    return found + ([] if config.tied_head else linear("head", "embed_out", bias=False))


BUFFERS = r"\.attention\.(masked_)?bias$|\.rotary_emb\.inv_freq$"
GPT_NEOX = Family(
    "gpt_neox", "GPTNeoXForCausalLM", "gpt_neox.", read, write, entries, BUFFERS, {"embed_out": "lm_head"}
)
