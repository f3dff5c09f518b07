"""Marian: BART with sinusoids for positions and no norm over the embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families import bart
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import Entry, same
from jax_attention.models import EncoderDecoderConfig


def read(fields: Fields) -> EncoderDecoderConfig:
    """Their fields as our config."""
    for name, value in (("normalize_embedding", False), ("static_position_embeddings", True)):
        fields.expect(name, value)
    shared = bart.read_bart_like(fields) | {"position": "sinusoidal_half"}
    target = fields.first(("decoder_vocab_size",), fields.take("vocab_size"))
    return bart.pair_of(fields, shared, target, fields.take("share_encoder_decoder_embeddings", True))


def write(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config as their fields."""
    own = {"decoder_vocab_size": config.decoder.vocab_size, "share_encoder_decoder_embeddings": config.shared_embedding}
    return bart.write(config) | own


def entries(config: EncoderDecoderConfig) -> list[Entry]:
    """The table."""
    if config.shared_embedding:
        tables = [same("decoder.embedding", "model.shared.weight")]
    else:
        tables = [same(f"{half}.embedding", f"model.{half}.embed_tokens.weight") for half in bart.HALVES]
    return tables + bart.blocks(config) + bart.head(config)


def copies(config: EncoderDecoderConfig) -> Mapping[str, str]:
    """What some files hold more than once."""
    if config.shared_embedding:
        return bart.copies(config)
    return {"lm_head.weight": "model.decoder.embed_tokens.weight"} if config.decoder.tied_head else {}


MARIAN = Family(
    "marian",
    "MarianMTModel",
    "model.",
    read,
    write,
    entries,
    buffers=r"\.embed_positions\.weight$",
    task="SEQ_2_SEQ_LM",
    pair=True,
    copies=copies,
    absent=bart.absent,
)
