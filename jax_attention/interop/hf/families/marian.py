"""Marian: BART with sinusoidal positions and no norm over the embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families import bart
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, same
from jax_attention.models import EncoderDecoderConfig


def read(fields: ConfigFields) -> EncoderDecoderConfig:
    """The config of this library from the fields of Hugging Face."""
    for name, value in (("normalize_embedding", False), ("static_position_embeddings", True)):
        fields.expect(name, value)
    shared = bart.read_bart_like(fields) | {"position": "sinusoidal_half"}
    target = fields.take_first(("decoder_vocab_size",), fields.take("vocab_size"))
    return bart.encoder_decoder_config(fields, shared, target, fields.take("share_encoder_decoder_embeddings", True))


def write(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    vocabulary = {
        "decoder_vocab_size": config.decoder.vocab_size,
        "share_encoder_decoder_embeddings": config.shared_embedding,
    }
    return bart.write(config) | vocabulary


def weight_mappings(config: EncoderDecoderConfig) -> list[WeightMapping]:
    """The table of all weights."""
    if config.shared_embedding:
        tables = [same("decoder.embedding", "model.shared.weight")]
    else:
        tables = [same(f"{stack}.embedding", f"model.{stack}.embed_tokens.weight") for stack in bart.STACKS]
    return tables + bart.blocks(config) + bart.head(config)


def copies(config: EncoderDecoderConfig) -> Mapping[str, str]:
    """Arrays that some files store more than once: name of the copy -> name of the original."""
    if config.shared_embedding:
        return bart.copies(config)
    return {"lm_head.weight": "model.decoder.embed_tokens.weight"} if config.decoder.tied_head else {}


MARIAN = Family(
    "marian",
    "MarianMTModel",
    "model.",
    read,
    write,
    weight_mappings,
    buffers=r"\.embed_positions\.weight$",
    peft_task="SEQ_2_SEQ_LM",
    is_encoder_decoder=True,
    copies=copies,
    optional_zeros=bart.optional_zeros,
)
