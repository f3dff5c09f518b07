"""Weight mappings of layers, and readers and writers of config fields, that several families share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax_attention import scores
from jax_attention.core.text import list_names, quote
from jax_attention.interop.weight_mapping import WeightMapping, concatenated, offset, same, transposed
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


# --- Fields ----------------------------------------------------------------------------------------------------------


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
        raise ValueError(f"config.json: expected an activation among {known}, got {quote(hf_name)}.")
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
    if not types:
        raise ValueError("config.json: expected layer_types with a name for each layer, got an empty list.")
    wrong = sorted(set(types) - set(known))
    if wrong:
        raise ValueError(f"config.json: expected layer_types among {', '.join(known)}, got {list_names(wrong)}.")
    layers = [known[name] for name in types]
    period = next(n for n in range(1, len(layers) + 1) if layers[n:] == layers[:-n])
    return tuple(layers[:period])


def layer_types(config: LMConfig) -> list[str]:
    """The inverse of `windows_from_layer_types`: one name for each layer."""
    names = {True: "full_attention", False: "sliding_attention"}
    return [names[config.window(layer) is None] for layer in range(config.depth)]


def window_size(config: LMConfig) -> int | None:
    """The first window of the config. Hugging Face has a field for one size; several do not survive the round trip."""
    return next((window for window in config.windows if window is not None), None)
