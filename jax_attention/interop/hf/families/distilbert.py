"""DistilBERT: BERT without types of tokens, under names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families import bert
from jax_attention.interop.hf.families.shared import biased, function_of, linear, norm, plain, projections
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import Entry, same
from jax_attention.models import LMConfig

LAYER = {"attention.out": "attention.out_lin", "feed_forward.up": "ffn.lin1", "feed_forward.down": "ffn.lin2"}
NORMS = {"attention_norm": "sa_layer_norm", "feed_forward_norm": "output_layer_norm"}
EPSILON = 1e-12
"""No field says it."""


def read(fields: Fields) -> LMConfig:
    """Their fields as our config."""
    for name in ("qa_dropout", "seq_classif_dropout", "tie_weights_", "sinusoidal_pos_embds"):
        fields.take(name, None)  # the last says how the table of positions began
    width = fields.take("dim", 768)
    return LMConfig(
        **bert.ENCODER,
        vocab_size=fields.take("vocab_size"),
        context=fields.take("max_position_embeddings", 512),
        width=width,
        depth=fields.take("n_layers", 6),
        num_heads=fields.take("n_heads", 12),
        ff_size=fields.take("hidden_dim", 3072),
        activation=plain(fields.take("activation", "gelu")),
        norm_epsilon=EPSILON,
        tied_head=fields.take("tie_word_embeddings", True),
        dropout=fields.take("dropout", 0.1),
        attention_dropout=fields.take("attention_dropout", 0.1),
    )


def write(config: LMConfig) -> dict[str, Any]:
    """Our config as their fields."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "dim": config.width,
        "n_layers": config.depth,
        "n_heads": config.num_heads,
        "hidden_dim": config.resolved_ff_size,
        "activation": function_of(config.activation),
        "tie_word_embeddings": config.tied_head,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
    }


def entries(config: LMConfig) -> list[Entry]:
    """The table."""
    embeddings = "distilbert.embeddings"
    found = [same("embedding", f"{embeddings}.word_embeddings.weight")]
    found.append(same("position", f"{embeddings}.position_embeddings.weight"))
    found += norm("embedding_norm", f"{embeddings}.LayerNorm", bias=True)
    for layer in range(config.depth):
        ours, theirs = f"blocks.rest.{layer}", f"distilbert.transformer.layer.{layer}"
        names = [f"{theirs}.attention.{x}_lin" for x in "qkv"]
        found += projections(config, f"{ours}.attention", names, bias=True) + biased(ours, theirs, LAYER, NORMS)
    if not config.head_transform:
        return found
    found += linear("head_transform", "vocab_transform", bias=True) + norm("head_norm", "vocab_layer_norm", bias=True)
    found.append(same("head_bias", "vocab_projector.bias"))
    return found + ([] if config.tied_head else linear("head", "vocab_projector", bias=False))


def copies(config: LMConfig) -> Mapping[str, str]:
    """What some files hold twice."""
    return {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"} if config.tied_head else {}


DISTILBERT = Family(
    "distilbert",
    "DistilBertForMaskedLM",
    "distilbert.",
    read,
    write,
    entries,
    buffers=r"\.position_ids$",
    old_names=bert.OLD,
    copies=copies,
    task=None,
    headless=bert.HEADLESS,
)
