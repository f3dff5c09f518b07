"""GPT-2: kernels are `[in, out]` as in this library, with query, key and value in one."""

from __future__ import annotations

from typing import Any

from jax_attention import scores
from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import biased_layers, hf_activation, linear, norm, plain_activation
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, as_is, same
from jax_attention.models import LMConfig

LINEAR = {
    "attention.projections.joined": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
NORMS = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}


def read(fields: ConfigFields) -> LMConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("add_cross_attention", False)
    fields.ignore("n_special", "predict_special_tokens")  # in published files
    fields.ignore("reorder_and_upcast_attn")  # scores in float32, as they always are here
    fields.ignore(*(f"summary_{x}" for x in ("type", "use_proj", "activation", "proj_to_labels")))
    fields.ignore("summary_first_dropout", "summary_last_dropout")
    width, rate = fields.take("n_embd"), fields.take_equal("resid_pdrop", "embd_pdrop", 0.1)
    return LMConfig(
        vocab_size=fields.take("vocab_size"),
        context=fields.take("n_positions", 1024),
        width=width,
        depth=fields.take("n_layer"),
        num_heads=fields.take("n_head"),
        ff_size=fields.take_first(("n_inner",), 4 * width),
        activation=plain_activation(fields.take("activation_function", "gelu_new")),
        score=None if fields.take("scale_attn_weights", True) else scores.scaled_dot(1.0),
        scale_by_layer=fields.take("scale_attn_by_inverse_layer_idx", False),
        norm_epsilon=fields.take("layer_norm_epsilon", 1e-5),
        tied_head=fields.take("tie_word_embeddings", True),
        dropout=rate,
        attention_dropout=fields.take("attn_pdrop", 0.1),
    )


def write(config: LMConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.depth,
        "n_head": config.num_heads,
        "n_inner": config.resolved_ff_size,
        "activation_function": hf_activation(config.activation),
        "scale_attn_weights": config.score != scores.scaled_dot(1.0),
        "scale_attn_by_inverse_layer_idx": config.scale_by_layer,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
    }


def weight_mappings(config: LMConfig) -> list[WeightMapping]:
    """The table of all weights."""
    mappings = [same("embedding", "transformer.wte.weight"), same("position", "transformer.wpe.weight")]
    mappings += norm("final_norm", "transformer.ln_f", bias=True)
    for layer in range(config.depth):
        jax_path, hf_path = f"blocks.rest.{layer}", f"transformer.h.{layer}"
        mappings += biased_layers(jax_path, hf_path, LINEAR, NORMS, kernel=as_is)
    return mappings + ([] if config.tied_head else linear("head", "lm_head", bias=False))


GPT2 = Family("gpt2", "GPT2LMHeadModel", "transformer.", read, write, weight_mappings, r"\.attn\.(masked_)?bias$")
