"""BERT: an encoder with token types, norms behind the sums, and a head of its own in front of the tied matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import biased, linear, norm, plain, projections, sizes_json
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import Entry, same, twice
from jax_attention.models import LMConfig

ENCODER = {
    "norm_place": "post",
    "mask": None,
    "embedding_norm": True,
    "head_transform": True,
    "head_bias": True,
}
"""What BERT and its children have in common."""
HEADLESS = {"head_transform": False, "head_bias": False, "tied_head": True}
OLD = {r"\.gamma$": ".weight", r"\.beta$": ".bias"}
LAYER = {
    "attention.out": "attention.output.dense",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
}
NORMS = {"attention_norm": "attention.output.LayerNorm", "feed_forward_norm": "output.LayerNorm"}


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    for name in ("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"):
        fields.take(name, None)  # of heads that are not read
    for name in ("pooler_size_per_head", "pooler_type"):
        fields.take(name, None)
    return LMConfig(**read_bert_like(fields, fields.take("max_position_embeddings", 512)))


def read_bert_like(fields: Fields, context: int) -> dict[str, Any]:
    """The fields that BERT and RoBERTa share."""
    for name, value in (("is_decoder", False), ("add_cross_attention", False)):
        fields.expect(name, value)
    fields.expect("position_embedding_type", "absolute")
    return ENCODER | {
        "vocab_size": fields.take("vocab_size"),
        "context": context,
        "width": fields.take("hidden_size", 768),
        "depth": fields.take("num_hidden_layers", 12),
        "num_heads": fields.take("num_attention_heads", 12),
        "ff_size": fields.take("intermediate_size", 3072),
        "activation": plain(fields.take("hidden_act", "gelu")),
        "norm_epsilon": fields.take("layer_norm_eps", 1e-12),
        "token_types": fields.take("type_vocab_size", 2),
        "tied_head": fields.take("tie_word_embeddings", True),
        "dropout": fields.take("hidden_dropout_prob", 0.1),
        "attention_dropout": fields.take("attention_probs_dropout_prob", 0.1),
    }


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    if not config.token_types:
        raise ValueError("token_types: expected at least one type of tokens, got 0.")
    return sizes_json(config) | {
        "layer_norm_eps": config.norm_epsilon,
        "type_vocab_size": config.token_types,
        "tie_word_embeddings": config.tied_head,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


def body(config: LMConfig, prefix: str, position: Entry) -> list[Entry]:
    """The table of all but the head."""
    embeddings = f"{prefix}.embeddings"
    found = [same("embedding", f"{embeddings}.word_embeddings.weight"), position]
    found.append(same("token_type", f"{embeddings}.token_type_embeddings.weight"))
    found += norm("embedding_norm", f"{embeddings}.LayerNorm", bias=True)
    for layer in range(config.depth):
        ours, theirs = f"blocks.rest.{layer}", f"{prefix}.encoder.layer.{layer}"
        names = [f"{theirs}.attention.self.{name}" for name in ("query", "key", "value")]
        found += projections(config, f"{ours}.attention", names, bias=True) + biased(ours, theirs, LAYER, NORMS)
    return found


def head(config: LMConfig, transform: str, norm_name: str, matrix: str, bias: str) -> list[Entry]:
    """The table of the head, where there is one. A tied matrix has the bias that stands beside it; one of its own has
    its own bias, beside which the other is kept and not read.
    """
    if not config.head_transform:
        return []
    found = [*linear("head_transform", transform, bias=True), *norm("head_norm", norm_name, bias=True)]
    if config.tied_head:
        return [*found, same("head_bias", bias)]
    return [*found, twice("head_bias", f"{matrix}.bias", bias), *linear("head", matrix, bias=False)]


def entries(config: LMConfig) -> list[Entry]:
    """The table."""
    own, top = same("position", "bert.embeddings.position_embeddings.weight"), "cls.predictions"
    names = (f"{top}.transform.dense", f"{top}.transform.LayerNorm", f"{top}.decoder", f"{top}.bias")
    return body(config, "bert", own) + head(config, *names)


def copies(config: LMConfig) -> Mapping[str, str]:
    """What some files hold twice."""
    top = "cls.predictions"
    names = {f"{top}.decoder.weight": "bert.embeddings.word_embeddings.weight", f"{top}.decoder.bias": f"{top}.bias"}
    return names if config.tied_head else {}


BERT = Family(
    "bert",
    "BertForMaskedLM",
    "bert.",
    read,
    write,
    entries,
    buffers=r"\.position_ids$|^(bert\.)?pooler\.|^cls\.seq_relationship\.",
    old_names=OLD,
    copies=copies,
    task=None,
    headless=HEADLESS,
)
