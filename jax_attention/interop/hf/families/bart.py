"""BART: an encoder-decoder with post-norm blocks, a norm over the embeddings, and learned positions in both stacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    biased_layers,
    hf_activation,
    linear,
    norm,
    plain_activation,
    projections,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, reshaped, same, skip_rows
from jax_attention.models import EncoderDecoderConfig, LMConfig

UNUSED_ROWS = 2
"""First rows of the position table, which no token reads: position 0 is row 2."""
STACKS = ("encoder", "decoder")


def read(fields: ConfigFields) -> EncoderDecoderConfig:
    """The config of this library from the fields of Hugging Face."""
    for name, value in (("normalize_embedding", True), ("static_position_embeddings", False)):
        fields.expect(name, value)
    shared = read_bart_like(fields) | {"embedding_norm": True, "position": "learned"}
    return encoder_decoder_config(fields, shared, fields.take("vocab_size"), True)


def read_bart_like(fields: ConfigFields) -> dict[str, Any]:
    """The fields that BART and Marian share, as arguments of the `LMConfig` of both stacks."""
    for name in ("normalize_before", "add_final_layer_norm", "add_bias_logits", "is_decoder"):
        fields.expect(name, False)
    fields.ignore("num_hidden_layers", "activation_dropout", "classif_dropout", "extra_pos_embeddings")
    fields.ignore(*(f"{stack}_layerdrop" for stack in STACKS))
    return {
        "context": fields.take("max_position_embeddings", 1024),
        "width": fields.take("d_model", 1024),
        "activation": plain_activation(fields.take("activation_function", "gelu")),
        "norm_place": "post",
        "scale_embedding": fields.take("scale_embedding", False),
        "dropout": fields.take("dropout", 0.1),
        "attention_dropout": fields.take("attention_dropout", 0.0),
    }


def encoder_decoder_config(
    fields: ConfigFields, shared: dict[str, Any], target_vocab_size: int, shared_embedding: bool
) -> EncoderDecoderConfig:
    """The config of both stacks: `shared` arguments, and depth, heads and feed-forward size of each."""
    sizes = {
        stack: {
            "depth": fields.take(f"{stack}_layers", 12),
            "num_heads": fields.take(f"{stack}_attention_heads", 16),
            "ff_size": fields.take(f"{stack}_ffn_dim", 4096),
        }
        for stack in STACKS
    }
    tied = fields.take("tie_word_embeddings", True)
    encoder = LMConfig(**shared, **sizes["encoder"], vocab_size=fields.take("vocab_size"), mask=None)
    head = {"vocab_size": target_vocab_size, "memory_size": shared["width"], "tied_head": tied, "head_bias": True}
    return EncoderDecoderConfig(
        encoder=encoder, decoder=LMConfig(**shared, **sizes["decoder"], **head), shared_embedding=shared_embedding
    )


def write(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    decoder = config.decoder
    fields = {
        "vocab_size": config.encoder.vocab_size,
        "max_position_embeddings": decoder.context,
        "d_model": decoder.width,
        "activation_function": hf_activation(decoder.activation),
        "scale_embedding": decoder.scale_embedding,
        "tie_word_embeddings": decoder.tied_head,
        "dropout": decoder.dropout,
        "attention_dropout": decoder.attention_dropout,
    }
    for stack, one in zip(STACKS, (config.encoder, decoder), strict=True):
        fields |= {
            f"{stack}_layers": one.depth,
            f"{stack}_attention_heads": one.num_heads,
            f"{stack}_ffn_dim": one.resolved_ff_size,
        }
    return fields


def weight_mappings(config: EncoderDecoderConfig) -> list[WeightMapping]:
    """The table of all weights."""
    mappings = blocks(config) + head(config) + [same("decoder.embedding", "model.shared.weight")]
    for stack, one in zip(STACKS, (config.encoder, config.decoder), strict=True):
        hf_path = f"model.{stack}"
        mappings.append(skip_rows(f"{stack}.position", f"{hf_path}.embed_positions.weight", one.context, UNUSED_ROWS))
        mappings += norm(f"{stack}.embedding_norm", f"{hf_path}.layernorm_embedding", bias=True)
    return mappings


def blocks(config: EncoderDecoderConfig) -> list[WeightMapping]:
    """The table of the blocks of both stacks."""
    mappings = []
    for stack, one in zip(STACKS, (config.encoder, config.decoder), strict=True):
        for layer in range(one.depth):
            mappings += _block(one, f"{stack}.blocks.rest.{layer}", f"model.{stack}.layers.{layer}")
    return mappings


def _block(config: LMConfig, jax_path: str, hf_path: str) -> list[WeightMapping]:
    layers = {"attention.out": "self_attn.out_proj", "feed_forward.up": "fc1", "feed_forward.down": "fc2"}
    norms = {"attention_norm": "self_attn_layer_norm", "feed_forward_norm": "final_layer_norm"}
    if config.memory_size is not None:
        cross = {f"projections.{name}": f"{name[0]}_proj" for name in ("query", "key", "value")} | {"out": "out_proj"}
        layers |= {f"cross.{jax_layer}": f"encoder_attn.{hf_layer}" for jax_layer, hf_layer in cross.items()}
        norms |= {"cross_norm": "encoder_attn_layer_norm"}
    names = [f"{hf_path}.self_attn.{x}_proj" for x in "qkv"]
    mappings = projections(config, f"{jax_path}.attention", names, bias=True)
    return mappings + biased_layers(jax_path, hf_path, layers, norms)


def head(config: EncoderDecoderConfig) -> list[WeightMapping]:
    """The table of the head."""
    size = config.decoder.vocab_size
    bias = reshaped("decoder.head_bias", "final_logits_bias", (size,), (1, size))
    return [bias, *([] if config.decoder.tied_head else linear("decoder.head", "lm_head", bias=False))]


def copies(config: EncoderDecoderConfig) -> Mapping[str, str]:
    """Arrays that some files store more than once: name of the copy -> name of the original."""
    names = [f"model.{stack}.embed_tokens.weight" for stack in STACKS]
    return dict.fromkeys(names + ["lm_head.weight"] * config.decoder.tied_head, "model.shared.weight")


def optional_zeros(config: EncoderDecoderConfig) -> Mapping[str, tuple[int, ...]]:
    """The bias of the logits, which folders of the bare model do not have."""
    return {"final_logits_bias": (1, config.decoder.vocab_size)}


BART = Family(
    "bart",
    "BartForConditionalGeneration",
    "model.",
    read,
    write,
    weight_mappings,
    peft_task="SEQ_2_SEQ_LM",
    is_encoder_decoder=True,
    copies=copies,
    optional_zeros=optional_zeros,
)
