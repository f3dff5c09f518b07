"""Converters of whole Transformers: encoder and decoder, a layer of either, and the two together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_attention.core.checks import fail_unless
from jax_attention.interop.torch.converter import Kind, refuse
from jax_attention.interop.torch.tensors import import_torch
from jax_attention.interop.weight_mapping import Entry, parted, same, turned
from jax_attention.models import EncoderDecoderStack, LMConfig, TransformerLayer, TransformerStack

LAYERS = {"Encoder": "TransformerEncoderLayer", "Decoder": "TransformerDecoderLayer"}
NEUTRAL = ("vocab_size", "context", "scan", "remat", "dtype", "param_dtype", "dropout", "attention_dropout")
"""Fields that do not say what a body without dropout computes from its numbers."""

# --- Reading ---------------------------------------------------------------------------------------------------------


def _layer_fields(module: Any) -> dict[str, Any]:
    """What one of their layers is, as fields of our config."""
    torch = import_torch()
    half = next((half for half, name in LAYERS.items() if isinstance(module, getattr(torch.nn, name))), None)
    fail_unless(
        half is not None and type(module).forward is getattr(torch.nn, LAYERS[half]).forward,
        f"module: expected layers {' or '.join(LAYERS.values())} with their own forward, got {type(module).__name__}.",
        TypeError,
    )
    own = getattr(torch.nn, LAYERS[half])
    _check_parts(module, own)
    norms = [norm for name, norm in module.named_children() if name.startswith("norm")]
    fail_unless(
        all(isinstance(norm, torch.nn.LayerNorm) and norm.eps == norms[0].eps for norm in norms),
        f"module: expected LayerNorms with one eps, got {norms}. Convert its parts.",
    )
    return {
        "width": module.self_attn.embed_dim,
        "num_heads": module.self_attn.num_heads,
        "ff_size": module.linear1.out_features,
        "activation": _activation(module.activation),
        "norm_place": "pre" if module.norm_first else "post",
        "norm_epsilon": norms[0].eps,
        "use_bias": module.linear1.bias is not None,
        "memory_size": module.self_attn.embed_dim if half == "Decoder" else None,
    }


def _check_parts(module: Any, own: type) -> None:
    """Whether the layer computes by its parts what PyTorch's does, and they are what its constructor makes."""
    torch, heads = import_torch(), module.self_attn.num_heads
    blocks = [name for name in ("_sa_block", "_mha_block", "_ff_block") if hasattr(own, name)]
    attentions = [getattr(module, name) for name in ("self_attn", "multihead_attn") if hasattr(module, name)]
    kinds = [(module.linear1, torch.nn.Linear), (module.linear2, torch.nn.Linear)]
    kinds += [(attention, torch.nn.MultiheadAttention) for attention in attentions]
    refuse(
        module,
        {f"its own {name}": getattr(type(module), name) is not getattr(own, name) for name in blocks}
        | {
            f"a {type(part).__name__} as {kind.__name__}": type(part).forward is not kind.forward
            for part, kind in kinds
        }
        | {
            "attentions of different heads": any(x.num_heads != heads for x in attentions),
            "key or value sizes": not all(x._qkv_same_embed_dim for x in attentions),
            "add_bias_kv": any(x.bias_k is not None for x in attentions),
            "add_zero_attn": any(x.add_zero_attn for x in attentions),
        },
        "Convert its parts.",
    )


def _activation(given: Any) -> str:
    """Our name of the function between their two linear layers."""
    torch = import_torch()
    functional = torch.nn.functional
    known = {functional.relu: "relu", torch.relu: "relu", functional.gelu: "gelu", functional.silu: "silu"}
    classes = {torch.nn.ReLU: "relu", torch.nn.SiLU: "silu"}
    if isinstance(given, torch.nn.GELU):
        return {"none": "gelu", "tanh": "gelu_tanh"}[given.approximate]
    found = classes.get(type(given)) or next((name for function, name in known.items() if given is function), None)
    fail_unless(found is not None, f"activation: expected ReLU, GELU or SiLU, got {given!r}. Convert the parts.")
    return found


def _stack_fields(module: Any) -> dict[str, Any]:
    """What a stack of their layers is; all of them must be alike, and the norm behind them like theirs."""
    torch = import_torch()
    stacks = (torch.nn.TransformerEncoder, torch.nn.TransformerDecoder)
    fail_unless(
        any(isinstance(module, stack) and type(module).forward is stack.forward for stack in stacks),
        f"module: expected TransformerEncoder or TransformerDecoder and their forward, got {type(module).__name__}.",
        TypeError,
    )
    each = [_layer_fields(layer) for layer in module.layers]
    fail_unless(
        bool(each) and all(fields == each[0] for fields in each),
        "module: expected at least one layer and all of them with the same options, got others. Convert them singly.",
    )
    norm, own = module.norm, each[0]
    alike = norm is None or (
        isinstance(norm, torch.nn.LayerNorm)
        and norm.eps == own["norm_epsilon"]
        and (norm.bias is not None) == own["use_bias"]
    )
    fail_unless(alike, f"module: expected a norm behind the layers like theirs, or none, got {norm}. Convert it apart.")
    return own | {"depth": len(each), "final_norm": norm is not None}


def _of_layer(module: Any) -> dict[str, Any]:
    return {"fields": _layer_fields(module) | {"depth": 1, "final_norm": False}}


def _of_stack(module: Any) -> dict[str, Any]:
    return {"fields": _stack_fields(module)}


def _of_pair(module: Any) -> dict[str, Any]:
    return {"encoder": _stack_fields(module.encoder), "decoder": _stack_fields(module.decoder)}


def _config(fields: dict[str, Any], param_dtype: Any = jnp.float32) -> LMConfig:
    dtype = str(jnp.dtype(param_dtype))
    return LMConfig(vocab_size=1, position="none", mask=None, dtype=dtype, param_dtype=dtype, **fields)


def _make(cls: type, fields: dict[str, Any], *, param_dtype: Any, rngs: nnx.Rngs) -> TransformerStack:
    return cls(_config(fields, param_dtype), rngs=rngs)


def _make_pair(
    encoder: dict[str, Any], decoder: dict[str, Any], *, param_dtype: Any, rngs: nnx.Rngs
) -> EncoderDecoderStack:
    return EncoderDecoderStack(_config(encoder, param_dtype), _config(decoder, param_dtype), rngs=rngs)


# --- Writing ---------------------------------------------------------------------------------------------------------


def _their_layer(layer: TransformerStack) -> dict[str, Any]:
    """The options of one of their layers."""
    torch, config = import_torch(), layer.config
    _check(layer)
    functions = {"relu": "relu", "gelu": "gelu", "silu": torch.nn.functional.silu}
    return {
        "d_model": config.width,
        "nhead": config.num_heads,
        "dim_feedforward": config.resolved_ff_size,
        "dropout": 0.0,
        "activation": functions.get(config.activation) or torch.nn.GELU(approximate="tanh"),
        "layer_norm_eps": config.norm_epsilon,
        "batch_first": True,
        "norm_first": config.norm_place == "pre",
        "bias": config.has_bias("qkv"),
    }


def _check(layer: TransformerStack) -> None:
    """Whether PyTorch has a Transformer with these options."""
    config = layer.config
    fields = {
        name: getattr(config, name)
        for name in ("width", "depth", "num_heads", "activation", "norm_place", "norm_epsilon", "memory_size")
    }
    fields |= {
        "ff_size": config.resolved_ff_size,
        "final_norm": config.has_final_norm,
        "use_bias": config.has_bias("qkv"),
    }
    expected = _config(fields)
    names = [field.name for field in dataclasses.fields(config) if field.name not in NEUTRAL]
    said = dataclasses.replace(config, ff_size=config.resolved_ff_size, final_norm=config.has_final_norm)
    refuse(
        layer,
        {f"{name}={getattr(config, name)!r}": getattr(said, name) != getattr(expected, name) for name in names}
        | {f"norm_place={config.norm_place!r}": config.norm_place not in ("pre", "post")}
        | {f"activation={config.activation!r}": config.activation not in ("relu", "gelu", "gelu_tanh", "silu")},
        "In PyTorch masks belong to the call; to_state_dict(layer) has the numbers alone.",
    )


def _their_stack(body: TransformerStack) -> dict[str, Any]:
    """The options of their stack of layers."""
    torch, config = import_torch(), body.config
    half = _half(body)
    layer = getattr(torch.nn, LAYERS[half])(**_their_layer(body))
    bias = config.has_bias("norm")
    norm = torch.nn.LayerNorm(config.width, config.norm_epsilon, bias=bias) if config.has_final_norm else None
    quiet = {"enable_nested_tensor": False} if half == "Encoder" else {}
    return {f"{half.lower()}_layer": layer, "num_layers": config.depth, "norm": norm} | quiet


def _their_pair(pair: EncoderDecoderStack) -> dict[str, Any]:
    torch, config = import_torch(), pair.encoder.config
    return {
        "d_model": config.width,
        "nhead": config.num_heads,
        "batch_first": True,
        "custom_encoder": torch.nn.TransformerEncoder(**_their_stack(pair.encoder)),
        "custom_decoder": torch.nn.TransformerDecoder(**_their_stack(pair.decoder)),
    }


def _half(body: TransformerStack) -> str:
    return "Encoder" if body.config.memory_size is None else "Decoder"


# --- Entries ---------------------------------------------------------------------------------------------------------


def _block(config: LMConfig, ours: str, theirs: str) -> list[Entry]:
    """One block."""
    places, crosses = ("kernel", "weight"), config.memory_size is not None
    norms = ["attention_norm", *["cross_norm"] * crosses, "feed_forward_norm"]
    found = [
        turned(f"{ours}attention.projections.joined.kernel", f"{theirs}self_attn.in_proj_weight"),
        *(same(f"{ours}{own}.scale", f"{theirs}norm{i}.weight") for i, own in enumerate(norms, 1)),
    ]
    linear = {"attention.out": "self_attn.out_proj", "feed_forward.up": "linear1", "feed_forward.down": "linear2"}
    parts = [f"{ours}cross.projections.{part}" for part in ("query", "key", "value")]
    if crosses:
        linear["cross.out"] = "multihead_attn.out_proj"
        found.append(
            parted([f"{part}.kernel" for part in parts], f"{theirs}multihead_attn.in_proj_weight", [config.width] * 3)
        )
    found += [turned(f"{ours}{own}.{places[0]}", f"{theirs}{name}.{places[1]}") for own, name in linear.items()]
    if not config.has_bias("qkv"):
        return found
    found.append(same(f"{ours}attention.projections.joined.bias", f"{theirs}self_attn.in_proj_bias"))
    if crosses:
        found.append(
            parted([f"{part}.bias" for part in parts], f"{theirs}multihead_attn.in_proj_bias", [config.width] * 3)
        )
    found += [same(f"{ours}{own}.bias", f"{theirs}{name}.bias") for own, name in linear.items()]
    return found + [same(f"{ours}{own}.bias", f"{theirs}norm{i}.bias") for i, own in enumerate(norms, 1)]


def _layer_entries(layer: TransformerLayer) -> list[Entry]:
    return _block(layer.config, "blocks.rest.0.", "")


def _stack_entries(body: TransformerStack, ours: str = "", theirs: str = "") -> list[Entry]:
    config = body.config
    refuse(body, {"scan=True": config.scan}, "Unroll its blocks first: models.unroll_layers(body).")
    other = config.memory_size not in (None, config.width)
    refuse(body, {f"memory_size={config.memory_size}": other}, "In PyTorch a memory has the width of the decoder.")
    found = [
        entry
        for i in range(config.depth)
        for entry in _block(config, f"{ours}blocks.rest.{i}.", f"{theirs}layers.{i}.")
    ]
    if not config.has_final_norm:
        return found
    biases = [same(f"{ours}final_norm.bias", f"{theirs}norm.bias")] if config.has_bias("norm") else []
    return [*found, same(f"{ours}final_norm.scale", f"{theirs}norm.weight"), *biases]


def _pair_entries(pair: EncoderDecoderStack) -> Sequence[Entry]:
    halves = {"encoder.": pair.encoder, "decoder.": pair.decoder}
    return [entry for name, body in halves.items() for entry in _stack_entries(body, name, name)]


def _kinds(half: str) -> tuple[Kind, Kind]:
    fits = lambda body: _half(body) == half  # noqa: E731
    one = Kind(
        LAYERS[half], TransformerLayer, partial(_make, TransformerLayer), _of_layer, _their_layer, _layer_entries, fits
    )
    name = f"Transformer{half}"
    return one, Kind(
        name, TransformerStack, partial(_make, TransformerStack), _of_stack, _their_stack, _stack_entries, fits
    )


PAIR = Kind("Transformer", EncoderDecoderStack, _make_pair, _of_pair, _their_pair, _pair_entries)
LAYER_KINDS, STACK_KINDS = zip(*(_kinds(half) for half in LAYERS), strict=True)
TRANSFORMERS = (PAIR, *LAYER_KINDS, *STACK_KINDS)
"""Single layers stand before stacks: a `TransformerLayer` is a `TransformerStack` too."""
