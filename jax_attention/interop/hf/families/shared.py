"""Weight mappings of layers, and readers and writers of config fields, that several families share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax_attention import scores
from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.interop.hf.rope_fields import read_rope, rope_json
from jax_attention.interop.weight_mapping import WeightMapping, concatenated, offset, same, split, transposed
from jax_attention.models import LMConfig
from jax_attention.scores import Score

PRE_NORMS = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
"""Norms of a pre-norm block: name here -> name in most families."""
ACTIVATIONS = {
    "gelu": ("gelu", "geglu"),
    "gelu_new": ("gelu_tanh", "geglu_tanh"),
    "gelu_pytorch_tanh": ("gelu_tanh", "geglu_tanh"),
    "gelu_fast": ("gelu_tanh", "geglu_tanh"),
    "relu": ("relu", None),
    "relu2": ("relu2", None),
    "silu": ("silu", "swiglu"),
    "swish": ("silu", "swiglu"),
}
"""Activation in Hugging Face -> the activation here, without a gate and with one."""


# --- Weights ---------------------------------------------------------------------------------------------------------


def linear(jax_path: str, hf_path: str, bias: bool, kernel: Any = transposed) -> list[WeightMapping]:
    """A kernel and, where there is one, its bias."""
    mappings = [kernel(f"{jax_path}.kernel", f"{hf_path}.weight")]
    return mappings + [same(f"{jax_path}.bias", f"{hf_path}.bias")] * bias


def norm(jax_path: str, hf_path: str, bias: bool = False, scale_offset: float = 0.0) -> list[WeightMapping]:
    """The scale of a norm, stored by Hugging Face minus `scale_offset`, and a bias where there is one."""
    names = f"{jax_path}.scale", f"{hf_path}.weight"
    scale = offset(*names, scale_offset) if scale_offset else same(*names)
    return [scale] + [same(f"{jax_path}.bias", f"{hf_path}.bias")] * bias


def projection_sizes(config: LMConfig) -> tuple[int, int, int]:
    """Features of all queries, keys and values."""
    heads = (config.num_heads, config.resolved_kv_heads, config.resolved_kv_heads)
    return tuple(n * config.resolved_head_size for n in heads)


def projections(config: LMConfig, jax_path: str, hf_layers: Sequence[str], bias: bool) -> list[WeightMapping]:
    """Hugging Face's layers for queries, keys and values, packed into one kernel of the attention layer here."""
    leaves = (("kernel", "weight"), ("bias", "bias"))[: 1 + bias]
    return [
        concatenated(
            f"{jax_path}.projections.joined.{jax_leaf}",
            [f"{layer}.{hf_leaf}" for layer in hf_layers],
            projection_sizes(config),
        )
        for jax_leaf, hf_leaf in leaves
    ]


def biased_layers(
    jax_path: str, hf_path: str, layers: Mapping[str, str], norms: Mapping[str, str], kernel: Any = transposed
) -> list[WeightMapping]:
    """Layers and norms of one block, name here -> name in Hugging Face, all with biases."""
    mappings = [
        mapping
        for jax_layer, hf_layer in layers.items()
        for mapping in linear(f"{jax_path}.{jax_layer}", f"{hf_path}.{hf_layer}", True, kernel)
    ]
    return mappings + [
        mapping
        for jax_norm, hf_norm in norms.items()
        for mapping in norm(f"{jax_path}.{jax_norm}", f"{hf_path}.{hf_norm}", True)
    ]


def llama_mappings(
    config: LMConfig, norms: Mapping[str, str] = PRE_NORMS, scale_offset: float = 0.0, packed: bool = False
) -> list[WeightMapping]:
    """The table of a Llama or of one of its many children: other norms, other biases, packed projections."""
    mappings = [
        same("embedding", "model.embed_tokens.weight"),
        *norm("final_norm", "model.norm", scale_offset=scale_offset),
    ]
    for layer in range(config.depth):
        jax_path, hf_path = f"blocks.rest.{layer}", f"model.layers.{layer}"
        mappings += _attention(config, f"{jax_path}.attention", f"{hf_path}.self_attn", scale_offset, packed)
        mappings += _gated_mlp(config, f"{jax_path}.feed_forward", f"{hf_path}.mlp", packed)
        for jax_norm, hf_norm in norms.items():
            mappings += norm(f"{jax_path}.{jax_norm}", f"{hf_path}.{hf_norm}", scale_offset=scale_offset)
    return mappings + ([] if config.tied_head else linear("head", "lm_head", bias=False))


def _attention(config: LMConfig, jax_path: str, hf_path: str, scale_offset: float, packed: bool) -> list[WeightMapping]:
    mappings = linear(f"{jax_path}.out", f"{hf_path}.o_proj", config.has_bias("out"))
    if config.qk_norm:
        for name in ("query", "key"):
            mappings += norm(f"{jax_path}.{name}_norm", f"{hf_path}.{name[0]}_norm", scale_offset=scale_offset)
    has_bias = config.has_bias("qkv")
    if packed:
        return mappings + linear(f"{jax_path}.projections.joined", f"{hf_path}.qkv_proj", has_bias)
    return mappings + projections(config, jax_path, [f"{hf_path}.{x}_proj" for x in "qkv"], has_bias)


def _gated_mlp(config: LMConfig, jax_path: str, hf_path: str, packed: bool) -> list[WeightMapping]:
    has_bias, size = config.has_bias("feed_forward"), config.resolved_ff_size
    mappings = linear(f"{jax_path}.down", f"{hf_path}.down_proj", has_bias)
    if packed:
        kernels = [f"{jax_path}.gate.kernel", f"{jax_path}.up.kernel"]
        return [*mappings, split(kernels, f"{hf_path}.gate_up_proj.weight", [size] * 2)]
    for name in ("gate", "up"):
        mappings += linear(f"{jax_path}.{name}", f"{hf_path}.{name}_proj", has_bias)
    return mappings


# --- Fields ----------------------------------------------------------------------------------------------------------


def read_llama_fields(
    fields: ConfigFields,
    *,
    activation: str | None = None,
    context: int = 2048,
    head_size: int | None = None,
    kv_heads: int | None = None,
    epsilon: float = 1e-6,
    tied: bool = False,
    fraction: float | None = None,
) -> dict[str, Any]:
    """The fields that Llama-like families share, as arguments of `LMConfig`.

    Keyword arguments are the family's defaults for absent fields; None stands for Llama's. Only `activation` is one
    that the family has already read. `fraction` is that of `read_rope`.
    """
    width, num_heads = fields.take("hidden_size"), fields.take("num_attention_heads")
    head_size = fields.take_first(("head_dim",), head_size or width // num_heads)
    context = fields.take("max_position_embeddings", context)
    return {
        "vocab_size": fields.take("vocab_size"),
        "context": context,
        "width": width,
        "depth": fields.take("num_hidden_layers"),
        "num_heads": num_heads,
        "kv_heads": fields.take_first(("num_key_value_heads",), kv_heads or num_heads),
        "head_size": head_size,
        "ff_size": fields.take("intermediate_size"),
        "activation": gated_activation(activation or fields.take("hidden_act", "silu")),
        "position": "rotary",
        "rope": read_rope(fields, head_size, context, fraction=fraction),
        "norm": "rms",
        "norm_epsilon": fields.take("rms_norm_eps", epsilon),
        "use_bias": False,
        "tied_head": bool(fields.take("tie_word_embeddings", tied)),
        "attention_dropout": float(fields.take_first(("attention_dropout",), 0.0)),
    }


def check_heads_divide_width(config: LMConfig) -> None:
    """Refuse sizes that transformers rejects when it reads the configs of some families."""
    if config.width % config.num_heads:
        raise ValueError(f"num_heads: expected a divisor of width = {config.width}, got {config.num_heads}.")


def write_llama_fields(config: LMConfig) -> dict[str, Any]:
    """The inverse of `read_llama_fields`."""
    return size_fields(config) | {
        "num_key_value_heads": config.resolved_kv_heads,
        "head_dim": config.resolved_head_size,
        "rope_parameters": rope_json(config.rope, config.resolved_head_size),
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": config.attention_dropout,
    }


def size_fields(config: LMConfig) -> dict[str, Any]:
    """Sizes and activation under the names that most families use."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.resolved_ff_size,
        "hidden_act": hf_activation(config.activation),
    }


def gated_activation(hf_name: str) -> str:
    """The gated activation (GLU) here, from the name of its function in Hugging Face."""
    return _activation(hf_name, 1)


def plain_activation(hf_name: str) -> str:
    """The activation here without a gate, from its name in Hugging Face."""
    return _activation(hf_name, 0)


def _activation(hf_name: str, column: int) -> str:
    activation = ACTIVATIONS.get(hf_name, (None, None))[column]
    if activation is None:
        known = ", ".join(name for name, pair in ACTIVATIONS.items() if pair[column])
        raise ValueError(f"config.json: expected an activation among {known}, got {hf_name!r}.")
    return activation


def hf_activation(activation: str) -> str:
    """Hugging Face's name of the function in an activation, gated or not."""
    return next(name for name, pair in ACTIVATIONS.items() if activation in pair)


def biased_places(**places: bool) -> tuple[str, ...] | bool:
    """The value of `use_bias` from whether each place has a bias."""
    return tuple(place for place, has_bias in places.items() if has_bias) or False


def score_from_denominator(denominator: float) -> Score:
    """Dot products over the square root of a number in the config (Gemma's `query_pre_attn_scalar`)."""
    return scores.scaled_dot(scale=denominator**-0.5)


def score_denominator(config: LMConfig) -> int:
    """The inverse of `score_from_denominator`; the head size where the score is the default."""
    scale = getattr(config.score, "scale", None)
    if scale is None:
        return config.resolved_head_size
    exact = float(scale) ** -2
    # The field is an integer. 1e-9 is far above the rounding of n -> n**-0.5 -> n in float64, and no scale that was
    # meant to be another number is that close to an integer's.
    if not math.isclose(exact, round(exact), rel_tol=1e-9):
        raise ValueError(f"score: expected a scale of 1 / sqrt(n) for a whole n, got {float(scale)}.")
    return round(exact)


# --- Windows ---------------------------------------------------------------------------------------------------------


def windows_from_layer_types(types: list[str], window: int | None) -> tuple[int | None, ...]:
    """The shortest pattern of windows whose repetition gives `layer_types`."""
    known = {"sliding_attention": window, "full_attention": None}
    wrong = sorted(set(types) - set(known))
    if wrong:
        raise ValueError(f"config.json: expected layer_types among {', '.join(known)}, got {', '.join(wrong)}.")
    layers = [known[name] for name in types]
    lengths = range(1, len(layers) + 1)
    period = next(n for n in lengths if all(x == layers[i % n] for i, x in enumerate(layers)))
    return tuple(layers[:period])


def layer_types(config: LMConfig) -> list[str]:
    """The inverse of `windows_from_layer_types`: one name for each layer."""
    names = {True: "full_attention", False: "sliding_attention"}
    return [names[config.window(layer) is None] for layer in range(config.depth)]


def window_size(config: LMConfig) -> int | None:
    """The first window of the config. Hugging Face has a field for one size; several do not survive the round trip."""
    return next((window for window in config.windows if window is not None), None)
