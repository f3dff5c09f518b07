"""T5: an encoder-decoder without biases; relative positions in both stacks, scores without a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jax_attention import scores
from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.families.shared import (
    gated_activation,
    hf_activation,
    linear,
    norm,
    plain_activation,
    projections,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping, same, transposed
from jax_attention.models import EncoderDecoderConfig, LMConfig
from jax_attention.nn.feed_forward import ACTIVATIONS

GATED = "gated-"


def read(fields: ConfigFields) -> EncoderDecoderConfig:
    """The config of this library from the fields of Hugging Face."""
    fields.expect("is_decoder", False)
    width, depth = fields.take("d_model"), fields.take("num_layers")
    tied = fields.take("tie_word_embeddings", True)
    shared = {
        "vocab_size": fields.take("vocab_size"),
        "context": fields.take("n_positions", 512),
        "width": width,
        "num_heads": fields.take("num_heads"),
        "head_size": fields.take("d_kv"),
        "ff_size": fields.take("d_ff"),
        "activation": _activation(fields),
        "position": "t5",
        "t5_buckets": fields.take("relative_attention_num_buckets", 32),
        "t5_max_distance": fields.take("relative_attention_max_distance", 128),
        "score": scores.scaled_dot(1.0),
        "norm": "rms",
        "norm_epsilon": fields.take("layer_norm_epsilon", 1e-6),
        "use_bias": False,
        "dropout": fields.take("dropout_rate", 0.1),
        "attention_dropout": fields.take("dropout_rate", 0.1),
    }
    is_scaled = fields.take_first(("scale_decoder_outputs",), tied)
    decoder = LMConfig(
        **shared,
        depth=fields.take_first(("num_decoder_layers",), depth),
        memory_size=width,
        tied_head=tied,
        logit_scale=width**-0.5 if is_scaled else 1.0,
    )
    return EncoderDecoderConfig(
        encoder=LMConfig(**shared, depth=depth, mask=None), decoder=decoder, shared_embedding=True
    )


def _activation(fields: ConfigFields) -> str:
    """The activation: `relu`, or `gated-` and a function, where `gated-gelu` is the tanh form.

    transformers saves two more fields that follow from the first; they must agree.
    """
    projection = fields.take("feed_forward_proj", "relu")
    is_gated = projection.startswith(GATED)
    name = "gelu_new" if projection == f"{GATED}gelu" else projection.removeprefix(GATED)
    fields.expect("is_gated_act", is_gated)
    fields.expect("dense_act_fn", name)
    return gated_activation(name) if is_gated else plain_activation(name)


def write(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of Hugging Face from a config of this library."""
    encoder, decoder = config.encoder, config.decoder
    # At width 1 both scales are 1, and reading the config back would not tell them apart.
    is_scaled = math.isclose(decoder.logit_scale, decoder.width**-0.5) and decoder.width > 1
    name = hf_activation(decoder.activation)
    is_gated = ACTIVATIONS[decoder.activation][1]
    projection = name if not is_gated else GATED + ("gelu" if name == "gelu_new" else name)
    return {
        "vocab_size": decoder.vocab_size,
        "n_positions": decoder.context,
        "d_model": decoder.width,
        "d_kv": decoder.resolved_head_size,
        "d_ff": decoder.resolved_ff_size,
        "num_layers": encoder.depth,
        "num_decoder_layers": decoder.depth,
        "num_heads": decoder.num_heads,
        "feed_forward_proj": projection,
        "relative_attention_num_buckets": decoder.t5_buckets,
        "relative_attention_max_distance": decoder.t5_max_distance,
        "layer_norm_epsilon": decoder.norm_epsilon,
        "tie_word_embeddings": decoder.tied_head,
        "scale_decoder_outputs": is_scaled,
        "dropout_rate": decoder.dropout,
    }


def weight_mappings(config: EncoderDecoderConfig) -> list[WeightMapping]:
    """The table of all weights."""
    mappings = [same("decoder.embedding", "shared.weight")]
    for stack, one in (("encoder", config.encoder), ("decoder", config.decoder)):
        # Only the first block of transformers stores the table of relative positions; all blocks of a stack use it.
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        mappings.append(transposed(f"{stack}.relative", table))
        mappings += norm(f"{stack}.final_norm", f"{stack}.final_layer_norm")
        for layer in range(one.depth):
            mappings += _block(one, f"{stack}.blocks.rest.{layer}", f"{stack}.block.{layer}.layer")
    return mappings + ([] if config.decoder.tied_head else linear("decoder.head", "lm_head", bias=False))


def _block(config: LMConfig, jax_path: str, hf_path: str) -> list[WeightMapping]:
    names = [f"{hf_path}.0.SelfAttention.{x}" for x in "qkv"]
    mappings = projections(config, f"{jax_path}.attention", names, bias=False)
    mappings += linear(f"{jax_path}.attention.out", f"{hf_path}.0.SelfAttention.o", bias=False)
    mappings += norm(f"{jax_path}.attention_norm", f"{hf_path}.0.layer_norm")
    last = 1
    if config.memory_size is not None:
        last = 2
        mappings += norm(f"{jax_path}.cross_norm", f"{hf_path}.1.layer_norm")
        cross = {"projections.query": "q", "projections.key": "k", "projections.value": "v", "out": "o"}
        for jax_layer, hf_layer in cross.items():
            mappings += linear(f"{jax_path}.cross.{jax_layer}", f"{hf_path}.1.EncDecAttention.{hf_layer}", bias=False)
    mappings += norm(f"{jax_path}.feed_forward_norm", f"{hf_path}.{last}.layer_norm")
    layers = {"gate": "wi_0", "up": "wi_1"} if ACTIVATIONS[config.activation][1] else {"up": "wi"}
    for jax_layer, hf_layer in (layers | {"down": "wo"}).items():
        hf_name = f"{hf_path}.{last}.DenseReluDense.{hf_layer}"
        mappings += linear(f"{jax_path}.feed_forward.{jax_layer}", hf_name, bias=False)
    return mappings


def copies(config: EncoderDecoderConfig) -> Mapping[str, str]:
    """Arrays that some files store more than once: name of the copy -> name of the original."""
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    return dict.fromkeys(names + ["lm_head.weight"] * config.decoder.tied_head, "shared.weight")


T5 = Family(
    "t5",
    "T5ForConditionalGeneration",
    "",
    read,
    write,
    weight_mappings,
    buffers=r"\.EncDecAttention\.relative_attention_bias\.weight$",
    peft_task="SEQ_2_SEQ_LM",
    is_encoder_decoder=True,
    copies=copies,
    head_weight_unties=True,
)
