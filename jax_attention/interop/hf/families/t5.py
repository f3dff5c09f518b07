"""T5: no biases, a table of relative positions in each half, scores without a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jax_attention import scores
from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.families.shared import function_of, gated, linear, norm, plain, projections
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import Entry, same, turned
from jax_attention.models import EncoderDecoderConfig, LMConfig
from jax_attention.models.config import T5_BUCKETS
from jax_attention.nn.feed_forward import ACTIVATIONS

FAR = 128
GATED = "gated-"


def read(fields: Fields) -> EncoderDecoderConfig:
    """Their fields as our config."""
    fields.expect("relative_attention_num_buckets", T5_BUCKETS)
    fields.expect("relative_attention_max_distance", FAR)
    fields.expect("is_decoder", False)
    width, depth = fields.take("d_model"), fields.take("num_layers")
    tied = fields.take("tie_word_embeddings", True) is not False
    shared = {
        "vocab_size": fields.take("vocab_size"),
        "context": fields.take("n_positions", 512),
        "width": width,
        "num_heads": fields.take("num_heads"),
        "head_size": fields.take("d_kv"),
        "ff_size": fields.take("d_ff"),
        "activation": _activation(fields),
        "position": "t5",
        "score": scores.scaled_dot(1.0),
        "norm": "rms",
        "norm_epsilon": fields.take("layer_norm_epsilon", 1e-6),
        "use_bias": False,
        "dropout": fields.take("dropout_rate", 0.1),
        "attention_dropout": fields.take("dropout_rate", 0.1),
    }
    scaled = fields.first(("scale_decoder_outputs",), tied)
    decoder = LMConfig(
        **shared,
        depth=fields.first(("num_decoder_layers",), depth),
        memory_size=width,
        tied_head=tied,
        logit_scale=width**-0.5 if scaled else 1.0,
    )
    return EncoderDecoderConfig(
        encoder=LMConfig(**shared, depth=depth, mask=None), decoder=decoder, shared_embedding=True
    )


def _activation(fields: Fields) -> str:
    """`relu`, or `gated-` and a function, whose GELU is the one by tanh; saved configs say it in three fields."""
    given = fields.take("feed_forward_proj", "relu")
    name = given.removeprefix(GATED)
    name = "gelu_new" if given == f"{GATED}gelu" else name
    fields.expect("is_gated_act", given.startswith(GATED))
    fields.expect("dense_act_fn", name)
    return gated(name) if given.startswith(GATED) else plain(name)


def write(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our config as their fields."""
    encoder, decoder = config.encoder, config.decoder
    scaled = math.isclose(decoder.logit_scale, decoder.width**-0.5) and decoder.width > 1
    name = function_of(decoder.activation)
    is_gated = ACTIVATIONS[decoder.activation][1]
    proj = name if not is_gated else GATED + ("gelu" if name == "gelu_new" else name)
    return {
        "vocab_size": decoder.vocab_size,
        "n_positions": decoder.context,
        "d_model": decoder.width,
        "d_kv": decoder.resolved_head_size,
        "d_ff": decoder.resolved_ff_size,
        "num_layers": encoder.depth,
        "num_decoder_layers": decoder.depth,
        "num_heads": decoder.num_heads,
        "feed_forward_proj": proj,
        "layer_norm_epsilon": decoder.norm_epsilon,
        "tie_word_embeddings": decoder.tied_head,
        "scale_decoder_outputs": scaled,
        "dropout_rate": decoder.dropout,
    }


def entries(config: EncoderDecoderConfig) -> list[Entry]:
    """The table."""
    found = [same("decoder.embedding", "shared.weight")]
    for half, own in (("encoder", config.encoder), ("decoder", config.decoder)):
        found.append(turned(f"{half}.relative", f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))
        found += norm(f"{half}.final_norm", f"{half}.final_layer_norm")
        for layer in range(own.depth):
            found += _block(own, f"{half}.blocks.rest.{layer}", f"{half}.block.{layer}.layer")
    return found + ([] if config.decoder.tied_head else linear("decoder.head", "lm_head", bias=False))


def _block(config: LMConfig, ours: str, theirs: str) -> list[Entry]:
    names = [f"{theirs}.0.SelfAttention.{x}" for x in "qkv"]
    found = projections(config, f"{ours}.attention", names, bias=False)
    found += linear(f"{ours}.attention.out", f"{theirs}.0.SelfAttention.o", bias=False)
    found += norm(f"{ours}.attention_norm", f"{theirs}.0.layer_norm")
    last = 1
    if config.memory_size is not None:
        last = 2
        found += norm(f"{ours}.cross_norm", f"{theirs}.1.layer_norm")
        for own, name in (
            ("projections.query", "q"),
            ("projections.key", "k"),
            ("projections.value", "v"),
            ("out", "o"),
        ):
            found += linear(f"{ours}.cross.{own}", f"{theirs}.1.EncDecAttention.{name}", bias=False)
    found += norm(f"{ours}.feed_forward_norm", f"{theirs}.{last}.layer_norm")
    dense = f"{theirs}.{last}.DenseReluDense"
    names = {"gate": "wi_0", "up": "wi_1"} if ACTIVATIONS[config.activation][1] else {"up": "wi"}
    for own, name in (names | {"down": "wo"}).items():
        found += linear(f"{ours}.feed_forward.{own}", f"{dense}.{name}", bias=False)
    return found


def copies(config: EncoderDecoderConfig) -> Mapping[str, str]:
    """What some files hold more than once."""
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    return dict.fromkeys(names + ["lm_head.weight"] * config.decoder.tied_head, "shared.weight")


T5 = Family(
    "t5",
    "T5ForConditionalGeneration",
    "",
    read,
    write,
    entries,
    buffers=r"\.EncDecAttention\.relative_attention_bias\.weight$",
    task="SEQ_2_SEQ_LM",
    pair=True,
    copies=copies,
    head_decides=True,
)
