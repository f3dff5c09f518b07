"""RoBERTa: BERT with one type of tokens, and a table of positions that begins behind the row of padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families import bert
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import Entry, behind
from jax_attention.models import LMConfig

PAD = 1
"""The padding token, whose number is also that of the last row which no token reads."""
FIRST = PAD + 1


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    fields.expect("pad_token_id", PAD)
    fields.expect("hidden_act", "gelu")  # the head has this one in any case
    return LMConfig(**bert.read_bert_like(fields, fields.take("max_position_embeddings", 512) - FIRST))


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return bert.write(config) | {"max_position_embeddings": config.context + FIRST, "pad_token_id": PAD}


def entries(config: LMConfig) -> list[Entry]:
    """The table."""
    own = behind("position", "roberta.embeddings.position_embeddings.weight", config.context, FIRST)
    names = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias")
    return bert.body(config, "roberta", own) + bert.head(config, *names)


def copies(config: LMConfig) -> Mapping[str, str]:
    """What some files hold twice."""
    table = "roberta.embeddings.word_embeddings.weight"
    return {"lm_head.decoder.weight": table, "lm_head.decoder.bias": "lm_head.bias"} if config.tied_head else {}


ROBERTA = Family(
    "roberta",
    "RobertaForMaskedLM",
    "roberta.",
    read,
    write,
    entries,
    buffers=r"\.position_ids$|^(roberta\.)?pooler\.",
    old_names=bert.OLD,
    copies=copies,
    task=None,
    headless=bert.HEADLESS,
)
