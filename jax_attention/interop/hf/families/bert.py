"""BERT: a post-norm encoder with token types; the head has a transform (linear, activation, norm) before its matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    biased_layers,
    linear,
    norm,
    plain_activation,
    projections,
    size_fields,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, duplicated, same
from jax_attention.models import LMConfig

ENCODER = {
    "norm_place": "post",
    "mask": None,
    "embedding_norm": True,
    "head_transform": True,
    "head_bias": True,
}
"""Fields of `LMConfig` that BERT, RoBERTa and DistilBERT share."""
HEADLESS = {"head_transform": False, "head_bias": False, "tied_head": True}
"""Fields for folders of the bare encoder, which have no weights for a head."""
RENAMED = {r"\.gamma$": ".weight", r"\.beta$": ".bias"}
"""Norm parameters in files that were converted from TensorFlow -> their present names."""
LAYERS = {
    "attention.out": "attention.output.dense",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
}
NORMS = {"attention_norm": "attention.output.LayerNorm", "feed_forward_norm": "output.LayerNorm"}


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.ignore("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers")
    fields.ignore("pooler_size_per_head", "pooler_type")  # all of these configure heads that are not read
    return LMConfig(**read_bert_like(fields, fields.take("max_position_embeddings", 512)))


def read_bert_like(fields: ConfigFields, context: int) -> dict[str, Any]:
    """The fields that BERT and RoBERTa share, as arguments of `LMConfig`."""
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
        "activation": plain_activation(fields.take("hidden_act", "gelu")),
        "norm_epsilon": fields.take("layer_norm_eps", 1e-12),
        "token_types": fields.take("type_vocab_size", 2),
        "tied_head": fields.take("tie_word_embeddings", True),
        "dropout": fields.take("hidden_dropout_prob", 0.1),
        "attention_dropout": fields.take("attention_probs_dropout_prob", 0.1),
    }


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    if not config.token_types:
        raise ValueError("token_types: expected at least one type of tokens, got 0.")
    return size_fields(config) | {
        "layer_norm_eps": config.norm_epsilon,
        "type_vocab_size": config.token_types,
        "tie_word_embeddings": config.tied_head,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }


def encoder_mappings(config: LMConfig, prefix: str, position: WeightMapping) -> list[WeightMapping]:
    """The table of everything except the head."""
    embeddings = f"{prefix}.embeddings"
    mappings = [same("embedding", f"{embeddings}.word_embeddings.weight"), position]
    mappings.append(same("token_type", f"{embeddings}.token_type_embeddings.weight"))
    mappings += norm("embedding_norm", f"{embeddings}.LayerNorm", bias=True)
    for layer in range(config.depth):
        jax_path, hf_path = f"blocks.rest.{layer}", f"{prefix}.encoder.layer.{layer}"
        names = [f"{hf_path}.attention.self.{name}" for name in ("query", "key", "value")]
        mappings += projections(config, f"{jax_path}.attention", names, bias=True)
        mappings += biased_layers(jax_path, hf_path, LAYERS, NORMS)
    return mappings


def head(config: LMConfig, transform: str, norm_name: str, matrix: str, bias: str) -> list[WeightMapping]:
    """The table of the head, empty for a bare encoder.

    transformers keeps two biases for the logits, `bias` and `matrix.bias`. A tied head uses the first. An untied one
    uses the second, and still stores the first without reading it.
    """
    if not config.head_transform:
        return []
    mappings = [*linear("head_transform", transform, bias=True), *norm("head_norm", norm_name, bias=True)]
    if config.tied_head:
        return [*mappings, same("head_bias", bias)]
    return [*mappings, duplicated("head_bias", f"{matrix}.bias", bias), *linear("head", matrix, bias=False)]


def weight_mappings(config: LMConfig) -> list[WeightMapping]:
    """The table of all weights."""
    position, top = same("position", "bert.embeddings.position_embeddings.weight"), "cls.predictions"
    names = (f"{top}.transform.dense", f"{top}.transform.LayerNorm", f"{top}.decoder", f"{top}.bias")
    return encoder_mappings(config, "bert", position) + head(config, *names)


def copies(config: LMConfig) -> Mapping[str, str]:
    """Arrays that some files store twice: name of the copy -> name of the original."""
    top = "cls.predictions"
    names = {f"{top}.decoder.weight": "bert.embeddings.word_embeddings.weight", f"{top}.decoder.bias": f"{top}.bias"}
    return names if config.tied_head else {}


BERT = Family(
    "bert",
    "BertForMaskedLM",
    "bert.",
    read,
    write,
    weight_mappings,
    buffers=r"\.position_ids$|^(bert\.)?pooler\.|^cls\.seq_relationship\.",
    renamed=RENAMED,
    copies=copies,
    peft_task=None,
    headless=HEADLESS,
)
