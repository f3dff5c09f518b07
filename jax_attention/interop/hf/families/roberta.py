"""RoBERTa: BERT with one token type, and a position table whose first two rows are never read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families import bert
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, skip_rows
from jax_attention.models import LMConfig

PAD = 1
"""Id of the padding token. Positions of transformers start after it, so the rows 0 to PAD are never read."""
UNUSED_ROWS = PAD + 1


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("pad_token_id", PAD)
    fields.expect("hidden_act", "gelu")  # the head uses GELU whatever the config says
    return LMConfig(**bert.read_bert_like(fields, fields.take("max_position_embeddings", 512) - UNUSED_ROWS))


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return bert.write(config) | {"max_position_embeddings": config.context + UNUSED_ROWS, "pad_token_id": PAD}


def weight_mappings(config: LMConfig) -> list[WeightMapping]:
    """The table of all weights."""
    position = skip_rows("position", "roberta.embeddings.position_embeddings.weight", config.context, UNUSED_ROWS)
    names = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
    return bert.encoder_mappings(config, "roberta", position) + bert.head(config, *names)


def copies(config: LMConfig) -> Mapping[str, str]:
    """Arrays that some files store twice: name of the copy -> name of the original."""
    table = "roberta.embeddings.word_embeddings.weight"
    return {"lm_head.decoder.weight": table, "lm_head.decoder.bias": "lm_head.bias"} if config.tied_head else {}


ROBERTA = Family(
    "roberta",
    "RobertaForMaskedLM",
    "roberta.",
    read,
    write,
    weight_mappings,
    buffers=r"\.position_ids$|^(roberta\.)?pooler\.",
    renamed=bert.RENAMED,
    copies=copies,
    peft_task=None,
    headless=bert.HEADLESS,
)
