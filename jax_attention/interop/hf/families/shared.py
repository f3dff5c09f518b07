"""What the families share: the entries of layers, and the fields that nearly all configs have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax_attention import scores
from jax_attention.interop.hf.config_fields import Fields
from jax_attention.interop.hf.rope_fields import read_rope, rope_json
from jax_attention.interop.weight_mapping import Entry, joined, parted, same, shifted, turned
from jax_attention.models import LMConfig
from jax_attention.scores import Score

PRE = {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"}
"""Our norms of a block by the names that most families use."""
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
"""Their names of functions -> ours: alone, and as the gate of a second projection."""


# --- Entries ---------------------------------------------------------------------------------------------------------


def linear(ours: str, theirs: str, bias: bool, kernel: Any = turned) -> list[Entry]:
    """A kernel and, where there is one, its bias."""
    entries = [kernel(f"{ours}.kernel", f"{theirs}.weight")]
    return entries + [same(f"{ours}.bias", f"{theirs}.bias")] * bias


def norm(ours: str, theirs: str, bias: bool = False, unit: float = 0.0) -> list[Entry]:
    """A scale, kept less `unit` by them, and a bias."""
    scale = shifted(f"{ours}.scale", f"{theirs}.weight", unit) if unit else same(f"{ours}.scale", f"{theirs}.weight")
    return [scale] + [same(f"{ours}.bias", f"{theirs}.bias")] * bias


def widths(config: LMConfig) -> tuple[int, int, int]:
    """Features of all queries, keys and values."""
    heads = (config.num_heads, config.resolved_kv_heads, config.resolved_kv_heads)
    return tuple(n * config.resolved_head_size for n in heads)


def projections(config: LMConfig, ours: str, theirs: Sequence[str], bias: bool) -> list[Entry]:
    """Their layers for queries, keys and values, which stand in one kernel of our attention layer."""
    places = (("kernel", "weight"), ("bias", "bias"))[: 1 + bias]
    return [
        joined(f"{ours}.projections.joined.{own}", [f"{layer}.{name}" for layer in theirs], widths(config))
        for own, name in places
    ]


def biased(
    ours: str, theirs: str, layers: Mapping[str, str], norms: Mapping[str, str], kernel: Any = turned
) -> list[Entry]:
    """Layers and norms of one block by our names and theirs, all with biases."""
    found = [
        entry for own, name in layers.items() for entry in linear(f"{ours}.{own}", f"{theirs}.{name}", True, kernel)
    ]
    return found + [entry for own, name in norms.items() for entry in norm(f"{ours}.{own}", f"{theirs}.{name}", True)]


def llama_like(
    config: LMConfig, norms: Mapping[str, str] = PRE, unit: float = 0.0, packed: bool = False
) -> list[Entry]:
    """The whole table of a Llama or one of its many children: other norms, other biases, packed projections."""
    entries = [same("embedding", "model.embed_tokens.weight"), *norm("final_norm", "model.norm", unit=unit)]
    for layer in range(config.depth):
        ours, theirs = f"blocks.rest.{layer}", f"model.layers.{layer}"
        entries += _attention(config, f"{ours}.attention", f"{theirs}.self_attn", unit, packed)
        entries += _gated(config, f"{ours}.feed_forward", f"{theirs}.mlp", packed)
        for own, name in norms.items():
            entries += norm(f"{ours}.{own}", f"{theirs}.{name}", unit=unit)
    return entries + ([] if config.tied_head else linear("head", "lm_head", bias=False))


def _attention(config: LMConfig, ours: str, theirs: str, unit: float, packed: bool) -> list[Entry]:
    entries = linear(f"{ours}.out", f"{theirs}.o_proj", config.has_bias("out"))
    if config.qk_norm:
        for name in ("query", "key"):
            entries += norm(f"{ours}.{name}_norm", f"{theirs}.{name[0]}_norm", unit=unit)
    has_bias = config.has_bias("qkv")
    if packed:
        return entries + linear(f"{ours}.projections.joined", f"{theirs}.qkv_proj", has_bias)
    return entries + projections(config, ours, [f"{theirs}.{x}_proj" for x in "qkv"], has_bias)


def _gated(config: LMConfig, ours: str, theirs: str, packed: bool) -> list[Entry]:
    has_bias, size = config.has_bias("feed_forward"), config.resolved_ff_size
    entries = linear(f"{ours}.down", f"{theirs}.down_proj", has_bias)
    if packed:
        return [
            *entries,
            parted([f"{ours}.gate.kernel", f"{ours}.up.kernel"], f"{theirs}.gate_up_proj.weight", [size] * 2),
        ]
    for name in ("gate", "up"):
        entries += linear(f"{ours}.{name}", f"{theirs}.{name}_proj", has_bias)
    return entries


# --- Fields ----------------------------------------------------------------------------------------------------------


def read_llama_like(
    fields: Fields,
    *,
    activation: str | None = None,
    context: int = 2048,
    head_size: int | None = None,
    kv_heads: int | None = None,
    epsilon: float = 1e-6,
    tied: bool = False,
    part: float | None = None,
) -> dict[str, Any]:
    """The fields that these families share, as those of our config. Arguments are what the family takes where a field
    is absent, but for `activation`, which was read already; None is that of Llama.
    """
    width, num_heads = fields.take("hidden_size"), fields.take("num_attention_heads")
    head_size = fields.first(("head_dim",), head_size or width // num_heads)
    context = fields.take("max_position_embeddings", context)
    return {
        "vocab_size": fields.take("vocab_size"),
        "context": context,
        "width": width,
        "depth": fields.take("num_hidden_layers"),
        "num_heads": num_heads,
        "kv_heads": fields.first(("num_key_value_heads",), kv_heads or num_heads),
        "head_size": head_size,
        "ff_size": fields.take("intermediate_size"),
        "activation": gated(activation or fields.take("hidden_act", "silu")),
        "position": "rotary",
        "rope": read_rope(fields, head_size, context, part=part),
        "norm": "rms",
        "norm_epsilon": fields.take("rms_norm_eps", epsilon),
        "use_bias": False,
        "tied_head": bool(fields.take("tie_word_embeddings", tied)),
        "attention_dropout": float(fields.first(("attention_dropout",), 0.0)),
    }


def check_divides(config: LMConfig) -> None:
    """Some families refuse other sizes when they read a config, though they would compute them."""
    if config.width % config.num_heads:
        raise ValueError(f"num_heads: expected a divisor of width = {config.width}, got {config.num_heads}.")


def write_llama_like(config: LMConfig) -> dict[str, Any]:
    """The inverse of `read_llama_like`."""
    return sizes_json(config) | {
        "num_key_value_heads": config.resolved_kv_heads,
        "head_dim": config.resolved_head_size,
        "rope_parameters": rope_json(config.rope, config.resolved_head_size),
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": config.attention_dropout,
    }


def sizes_json(config: LMConfig) -> dict[str, Any]:
    """What most families call the sizes and the activation."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.resolved_ff_size,
        "hidden_act": function_of(config.activation),
    }


def gated(name: str) -> str:
    """Our name of a gated activation."""
    return _activation(name, 1)


def plain(name: str) -> str:
    """Our name of an activation without a gate."""
    return _activation(name, 0)


def _activation(name: str, kind: int) -> str:
    found = ACTIVATIONS.get(name, (None, None))[kind]
    if found is None:
        known = ", ".join(theirs for theirs, ours in ACTIVATIONS.items() if ours[kind])
        raise ValueError(f"config.json: expected an activation among {known}, got {name!r}.")
    return found


def function_of(activation: str) -> str:
    """Their name of the function in one of our activations."""
    return next(theirs for theirs, ours in ACTIVATIONS.items() if activation in ours)


def biases(**places: bool) -> tuple[str, ...] | bool:
    """The value of `use_bias` from what is biased."""
    return tuple(place for place, biased in places.items() if biased) or False


def score_of(denominator: float) -> Score:
    """Scores over the square root of a number that the config gives (Gemma)."""
    return scores.scaled_dot(scale=denominator**-0.5)


def denominator_of(config: LMConfig) -> int:
    """The inverse of `score_of`; the head size where the score is the default."""
    scale = getattr(config.score, "scale", None)
    if scale is None:
        return config.resolved_head_size
    exact = float(scale) ** -2
    if not math.isclose(exact, round(exact), rel_tol=1e-9):
        raise ValueError(f"score: expected a scale of 1 / sqrt(n) for a whole n, got {float(scale)}.")
    return round(exact)


# --- Windows ---------------------------------------------------------------------------------------------------------


def windows_of(kinds: list[str], window: int | None) -> tuple[int | None, ...]:
    """The shortest pattern of windows that repeats to `layer_types`."""
    known = {"sliding_attention": window, "full_attention": None}
    wrong = sorted(set(kinds) - set(known))
    if wrong:
        raise ValueError(f"config.json: expected layer_types among {', '.join(known)}, got {', '.join(wrong)}.")
    layers = [known[kind] for kind in kinds]
    lengths = range(1, len(layers) + 1)
    period = next(n for n in lengths if all(x == layers[i % n] for i, x in enumerate(layers)))
    return tuple(layers[:period])


def layer_types(config: LMConfig) -> list[str]:
    """The inverse: one name for each layer."""
    kinds = {True: "full_attention", False: "sliding_attention"}
    return [kinds[config.window(layer) is None] for layer in range(config.depth)]


def window_of(config: LMConfig) -> int | None:
    """The one size of the windows; their configs have no place for several."""
    return next((window for window in config.windows if window is not None), None)
