"""DistilBERT: BERT without token types and with other names for everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families import bert
from jax_attention.interop.hf.families.shared import (
    biased_layers,
    hf_activation,
    linear,
    norm,
    plain_activation,
    projections,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, same
from jax_attention.models import LMConfig

LAYERS = {"attention.out": "attention.out_lin", "feed_forward.up": "ffn.lin1", "feed_forward.down": "ffn.lin2"}
NORMS = {"attention_norm": "sa_layer_norm", "feed_forward_norm": "output_layer_norm"}
EPSILON = 1e-12
"""Of all norms: a constant in the code of transformers, without a field in the config."""


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    # sinusoidal_pos_embds only decides the initial position table.
    fields.ignore("qa_dropout", "seq_classif_dropout", "tie_weights_", "sinusoidal_pos_embds")
    fields.expect("is_decoder", False)
    width = fields.take("dim", 768)
    return LMConfig(
        **bert.ENCODER,
        vocab_size=fields.take("vocab_size"),
        context=fields.take("max_position_embeddings", 512),
        width=width,
        depth=fields.take("n_layers", 6),
        num_heads=fields.take("n_heads", 12),
        ff_size=fields.take("hidden_dim", 3072),
        activation=plain_activation(fields.take("activation", "gelu")),
        norm_epsilon=EPSILON,
        tied_head=fields.take("tie_word_embeddings", True),
        dropout=fields.take("dropout", 0.1),
        attention_dropout=fields.take("attention_dropout", 0.1),
    )


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "dim": config.width,
        "n_layers": config.depth,
        "n_heads": config.num_heads,
        "hidden_dim": config.resolved_ff_size,
        "activation": hf_activation(config.activation),
        "tie_word_embeddings": config.tied_head,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
    }


def weight_mappings(config: LMConfig) -> list[WeightMapping]:
    """The table of all weights."""
    embeddings = "distilbert.embeddings"
    mappings = [same("embedding", f"{embeddings}.word_embeddings.weight")]
    mappings.append(same("position", f"{embeddings}.position_embeddings.weight"))
    mappings += norm("embedding_norm", f"{embeddings}.LayerNorm", bias=True)
    for layer in range(config.depth):
        jax_path, hf_path = f"blocks.rest.{layer}", f"distilbert.transformer.layer.{layer}"
        names = [f"{hf_path}.attention.{x}_lin" for x in "qkv"]
        mappings += projections(config, f"{jax_path}.attention", names, bias=True)
        mappings += biased_layers(jax_path, hf_path, LAYERS, NORMS)
    if not config.head_transform:
        return mappings
    mappings += linear("head_transform", "vocab_transform", bias=True) + norm(
        "head_norm", "vocab_layer_norm", bias=True
    )
    mappings.append(same("head_bias", "vocab_projector.bias"))
    return mappings + ([] if config.tied_head else linear("head", "vocab_projector", bias=False))


def copies(config: LMConfig) -> Mapping[str, str]:
    """Arrays that some files store twice: name of the copy -> name of the original."""
    return {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"} if config.tied_head else {}


DISTILBERT = Family(
    "distilbert",
    "DistilBertForMaskedLM",
    "distilbert.",
    read,
    write,
    weight_mappings,
    buffers=r"\.position_ids$",
    renamed=bert.RENAMED,
    copies=copies,
    peft_task=None,
    headless=bert.HEADLESS,
)
