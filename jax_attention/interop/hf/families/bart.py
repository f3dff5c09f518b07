"""BART: norms behind the sums and over the embeddings, a learned position for every token of either half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import biased, function_of, linear, norm, plain, projections
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import Entry, behind, reshaped, same
from jax_attention.models import EncoderDecoderConfig, LMConfig

UNUSED = 2
"""Rows in front of the table of positions."""
HALVES = ("encoder", "decoder")


def read(fields: Fields) -> EncoderDecoderConfig:
    """Their fields as our config."""
    for name, value in (("normalize_embedding", True), ("static_position_embeddings", False)):
        fields.expect(name, value)
    shared = read_bart_like(fields) | {"embedding_norm": True, "position": "learned"}
    return pair_of(fields, shared, fields.take("vocab_size"), True)


def read_bart_like(fields: Fields) -> dict[str, Any]:
    """The fields of both halves that BART and Marian share."""
    for name in ("normalize_before", "add_final_layer_norm", "add_bias_logits", "is_decoder"):
        fields.expect(name, False)
    for name in ("num_hidden_layers", "activation_dropout", "classif_dropout", "extra_pos_embeddings"):
        fields.take(name, None)
    for half in HALVES:
        fields.take(f"{half}_layerdrop", None)
    return {
        "context": fields.take("max_position_embeddings", 1024),
        "width": fields.take("d_model", 1024),
        "activation": plain(fields.take("activation_function", "gelu")),
        "norm_place": "post",
        "scale_embedding": fields.take("scale_embedding", False),
        "dropout": fields.take("dropout", 0.1),
        "attention_dropout": fields.take("attention_dropout", 0.0),
    }


def pair_of(fields: Fields, shared: dict[str, Any], target_size: int, one_table: bool) -> EncoderDecoderConfig:
    """Both halves, whose sizes have fields of their own."""
    sizes = {
        half: {
            "depth": fields.take(f"{half}_layers", 12),
            "num_heads": fields.take(f"{half}_attention_heads", 16),
            "ff_size": fields.take(f"{half}_ffn_dim", 4096),
        }
        for half in HALVES
    }
    tied = fields.take("tie_word_embeddings", True)
    encoder = LMConfig(**shared, **sizes["encoder"], vocab_size=fields.take("vocab_size"), mask=None)
    head = {"vocab_size": target_size, "memory_size": shared["width"], "tied_head": tied, "head_bias": True}
    return EncoderDecoderConfig(
        encoder=encoder, decoder=LMConfig(**shared, **sizes["decoder"], **head), shared_embedding=one_table
    )


def write(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config as their fields."""
    decoder = config.decoder
    found = {
        "vocab_size": config.encoder.vocab_size,
        "max_position_embeddings": decoder.context,
        "d_model": decoder.width,
        "activation_function": function_of(decoder.activation),
        "scale_embedding": decoder.scale_embedding,
        "tie_word_embeddings": decoder.tied_head,
        "dropout": decoder.dropout,
        "attention_dropout": decoder.attention_dropout,
    }
    for half, own in zip(HALVES, (config.encoder, decoder), strict=True):
        found |= {
            f"{half}_layers": own.depth,
            f"{half}_attention_heads": own.num_heads,
            f"{half}_ffn_dim": own.resolved_ff_size,
        }
    return found


def entries(config: EncoderDecoderConfig) -> list[Entry]:
    """The table."""
    found = blocks(config) + head(config) + [same("decoder.embedding", "model.shared.weight")]
    for half, own in zip(HALVES, (config.encoder, config.decoder), strict=True):
        theirs = f"model.{half}"
        found.append(behind(f"{half}.position", f"{theirs}.embed_positions.weight", own.context, UNUSED))
        found += norm(f"{half}.embedding_norm", f"{theirs}.layernorm_embedding", bias=True)
    return found


def blocks(config: EncoderDecoderConfig) -> list[Entry]:
    """The table of all blocks."""
    found = []
    for half, own in zip(HALVES, (config.encoder, config.decoder), strict=True):
        for layer in range(own.depth):
            found += _block(own, f"{half}.blocks.rest.{layer}", f"model.{half}.layers.{layer}")
    return found


def _block(config: LMConfig, ours: str, theirs: str) -> list[Entry]:
    layers = {"attention.out": "self_attn.out_proj", "feed_forward.up": "fc1", "feed_forward.down": "fc2"}
    norms = {"attention_norm": "self_attn_layer_norm", "feed_forward_norm": "final_layer_norm"}
    if config.memory_size is not None:
        parts = {f"projections.{name}": f"{name[0]}_proj" for name in ("query", "key", "value")} | {"out": "out_proj"}
        layers |= {f"cross.{own}": f"encoder_attn.{name}" for own, name in parts.items()}
        norms |= {"cross_norm": "encoder_attn_layer_norm"}
    names = [f"{theirs}.self_attn.{x}_proj" for x in "qkv"]
    return projections(config, f"{ours}.attention", names, bias=True) + biased(ours, theirs, layers, norms)


def head(config: EncoderDecoderConfig) -> list[Entry]:
    """The table of the head."""
    size = config.decoder.vocab_size
    bias = reshaped("decoder.head_bias", "final_logits_bias", (size,), (1, size))
    return [bias, *([] if config.decoder.tied_head else linear("decoder.head", "lm_head", bias=False))]


def copies(config: EncoderDecoderConfig) -> Mapping[str, str]:
    """What some files hold more than once."""
    names = [f"model.{half}.embed_tokens.weight" for half in HALVES]
    return dict.fromkeys(names + ["lm_head.weight"] * config.decoder.tied_head, "model.shared.weight")


def absent(config: EncoderDecoderConfig) -> Mapping[str, tuple[int, ...]]:
    """Bare models have no bias of logits."""
    return {"final_logits_bias": (1, config.decoder.vocab_size)}


BART = Family(
    "bart",
    "BartForConditionalGeneration",
    "model.",
    read,
    write,
    entries,
    task="SEQ_2_SEQ_LM",
    pair=True,
    copies=copies,
    absent=absent,
)
