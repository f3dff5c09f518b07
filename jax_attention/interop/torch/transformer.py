"""Converters of Transformers: an encoder or decoder layer, a stack of them, and encoder and decoder together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jax_attention.core.checks import fail_unless
from jax_attention.interop.torch.layers import LayerConverter, check_options
from jax_attention.interop.torch.tensors import import_torch
from jax_attention.interop.weight_mapping import WeightMapping, same, split, transposed
from jax_attention.models import EncoderDecoderStack, LMConfig, TransformerLayer, TransformerStack

LAYERS = {"Encoder": "TransformerEncoderLayer", "Decoder": "TransformerDecoderLayer"}
NEUTRAL = ("vocab_size", "context", "scan", "remat", "dtype", "param_dtype", "dropout", "attention_dropout")
"""Fields of `LMConfig` that do not change what a stack of blocks computes without dropout."""

# --- From torch ------------------------------------------------------------------------------------------------------


def _layer_fields(module: Any) -> dict[str, Any]:
    """Arguments of `LMConfig` from one torch layer."""
    torch = import_torch()
    role = next((role for role, name in LAYERS.items() if isinstance(module, getattr(torch.nn, name))), None)
    fail_unless(
        role is not None and type(module).forward is getattr(torch.nn, LAYERS[role]).forward,
        f"module: expected layers {' or '.join(LAYERS.values())} with PyTorch's forward, got {type(module).__name__}.",
        TypeError,
    )
    _check_submodules(module, getattr(torch.nn, LAYERS[role]))
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
        "memory_size": module.self_attn.embed_dim if role == "Decoder" else None,
    }


def _check_submodules(module: Any, torch_class: type) -> None:
    """Refuse a layer with overridden methods, or with submodules that its constructor would not make: both keep the
    class and its forward and change what it computes.
    """
    torch, heads = import_torch(), module.self_attn.num_heads
    methods = [name for name in ("_sa_block", "_mha_block", "_ff_block") if hasattr(torch_class, name)]
    attentions = [getattr(module, name) for name in ("self_attn", "multihead_attn") if hasattr(module, name)]
    submodules = [(module.linear1, torch.nn.Linear), (module.linear2, torch.nn.Linear)]
    submodules += [(attention, torch.nn.MultiheadAttention) for attention in attentions]
    check_options(
        module,
        {f"an overridden {name}": getattr(type(module), name) is not getattr(torch_class, name) for name in methods}
        | {
            f"a {type(submodule).__name__} as {expected.__name__}": type(submodule).forward is not expected.forward
            for submodule, expected in submodules
        }
        | {
            "attentions of different heads": any(x.num_heads != heads for x in attentions),
            "key or value sizes": not all(x._qkv_same_embed_dim for x in attentions),
            "add_bias_kv": any(x.bias_k is not None for x in attentions),
            "add_zero_attn": any(x.add_zero_attn for x in attentions),
        },
        "Convert its parts.",
    )


def _activation(function: Any) -> str:
    """The activation here, from the function or module between the two linear layers of a torch layer."""
    torch = import_torch()
    functional = torch.nn.functional
    functions = {functional.relu: "relu", torch.relu: "relu", functional.gelu: "gelu", functional.silu: "silu"}
    classes = {torch.nn.ReLU: "relu", torch.nn.SiLU: "silu"}
    if isinstance(function, torch.nn.GELU):
        return {"none": "gelu", "tanh": "gelu_tanh"}[function.approximate]
    same_function = next((name for known, name in functions.items() if function is known), None)
    activation = classes.get(type(function)) or same_function
    fail_unless(
        activation is not None, f"activation: expected ReLU, GELU or SiLU, got {function!r}. Convert the parts."
    )
    return activation


def _stack_fields(module: Any) -> dict[str, Any]:
    """Arguments of `LMConfig` from a torch stack, whose layers and last norm must be alike."""
    torch = import_torch()
    stacks = (torch.nn.TransformerEncoder, torch.nn.TransformerDecoder)
    fail_unless(
        any(isinstance(module, stack) and type(module).forward is stack.forward for stack in stacks),
        f"module: expected TransformerEncoder or TransformerDecoder with PyTorch's forward, got "
        f"{type(module).__name__}.",
        TypeError,
    )
    layers = [_layer_fields(layer) for layer in module.layers]
    fail_unless(
        bool(layers) and all(fields == layers[0] for fields in layers),
        "module: expected at least one layer and all of them with the same options, got others. Convert them singly.",
    )
    norm, fields = module.norm, layers[0]
    is_alike = norm is None or (
        isinstance(norm, torch.nn.LayerNorm)
        and norm.eps == fields["norm_epsilon"]
        and (norm.bias is not None) == fields["use_bias"]
    )
    fail_unless(
        is_alike, f"module: expected a last norm like those of the layers, or none, got {norm}. Convert it apart."
    )
    return fields | {"depth": len(layers), "final_norm": norm is not None}


def _layer_jax_options(module: Any) -> dict[str, Any]:
    return {"fields": _layer_fields(module) | {"depth": 1, "final_norm": False}}


def _stack_jax_options(module: Any) -> dict[str, Any]:
    return {"fields": _stack_fields(module)}


def _pair_jax_options(module: Any) -> dict[str, Any]:
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


# --- To torch --------------------------------------------------------------------------------------------------------


def _layer_torch_options(layer: TransformerStack) -> dict[str, Any]:
    """Arguments of `TransformerEncoderLayer` or `TransformerDecoderLayer`, for each layer of a stack."""
    torch, config = import_torch(), layer.config
    _check_config(layer)
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


def _check_config(layer: TransformerStack) -> None:
    """Refuse a config with options that the Transformers of PyTorch lack.

    The expected config has only the fields that PyTorch's layers have, and defaults elsewhere; whatever differs from it
    is unsupported.
    """
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
    resolved = dataclasses.replace(config, ff_size=config.resolved_ff_size, final_norm=config.has_final_norm)
    check_options(
        layer,
        {f"{name}={getattr(config, name)!r}": getattr(resolved, name) != getattr(expected, name) for name in names}
        | {f"norm_place={config.norm_place!r}": config.norm_place not in ("pre", "post")}
        | {f"activation={config.activation!r}": config.activation not in ("relu", "gelu", "gelu_tanh", "silu")},
        "In PyTorch masks belong to the call; to_state_dict(layer) has the numbers alone.",
    )


def _stack_torch_options(stack: TransformerStack) -> dict[str, Any]:
    """Arguments of `TransformerEncoder` or `TransformerDecoder`."""
    torch, config = import_torch(), stack.config
    role = _role(stack)
    layer = getattr(torch.nn, LAYERS[role])(**_layer_torch_options(stack))
    bias = config.has_bias("norm")
    norm = torch.nn.LayerNorm(config.width, config.norm_epsilon, bias=bias) if config.has_final_norm else None
    # Nested tensors are an optimisation for padding; unless turned off, an encoder that cannot use them warns.
    options = {"enable_nested_tensor": False} if role == "Encoder" else {}
    return {f"{role.lower()}_layer": layer, "num_layers": config.depth, "norm": norm} | options


def _pair_torch_options(pair: EncoderDecoderStack) -> dict[str, Any]:
    """Arguments of `Transformer`."""
    torch, config = import_torch(), pair.encoder.config
    return {
        "d_model": config.width,
        "nhead": config.num_heads,
        "batch_first": True,
        "custom_encoder": torch.nn.TransformerEncoder(**_stack_torch_options(pair.encoder)),
        "custom_decoder": torch.nn.TransformerDecoder(**_stack_torch_options(pair.decoder)),
    }


def _role(stack: TransformerStack) -> str:
    return "Encoder" if stack.config.memory_size is None else "Decoder"


# --- Weights ---------------------------------------------------------------------------------------------------------


def _block_mappings(config: LMConfig, jax_path: str, torch_path: str) -> list[WeightMapping]:
    """The table of one block. Self-attention is packed on both sides; cross-attention, whose query and key come from
    different inputs, is packed in PyTorch alone.
    """
    has_cross = config.memory_size is not None
    norms = ["attention_norm", *["cross_norm"] * has_cross, "feed_forward_norm"]
    linear = {"attention.out": "self_attn.out_proj", "feed_forward.up": "linear1", "feed_forward.down": "linear2"}
    linear |= {"cross.out": "multihead_attn.out_proj"} if has_cross else {}
    packed = f"{jax_path}attention.projections.joined"
    cross = [f"{jax_path}cross.projections.{name}" for name in ("query", "key", "value")]
    cross_packed, sizes = f"{torch_path}multihead_attn.in_proj", [config.width] * 3

    mappings = [transposed(f"{packed}.kernel", f"{torch_path}self_attn.in_proj_weight")]
    mappings += [same(f"{jax_path}{norm}.scale", f"{torch_path}norm{i}.weight") for i, norm in enumerate(norms, 1)]
    if has_cross:
        mappings.append(split([f"{layer}.kernel" for layer in cross], f"{cross_packed}_weight", sizes))
    mappings += [transposed(f"{jax_path}{jax}.kernel", f"{torch_path}{torch}.weight") for jax, torch in linear.items()]
    if not config.has_bias("qkv"):
        return mappings
    mappings.append(same(f"{packed}.bias", f"{torch_path}self_attn.in_proj_bias"))
    if has_cross:
        mappings.append(split([f"{layer}.bias" for layer in cross], f"{cross_packed}_bias", sizes))
    mappings += [same(f"{jax_path}{jax}.bias", f"{torch_path}{torch}.bias") for jax, torch in linear.items()]
    return mappings + [same(f"{jax_path}{norm}.bias", f"{torch_path}norm{i}.bias") for i, norm in enumerate(norms, 1)]


def _layer_mappings(layer: TransformerLayer) -> list[WeightMapping]:
    return _block_mappings(layer.config, "blocks.rest.0.", "")


def _stack_mappings(stack: TransformerStack, jax_path: str = "", torch_path: str = "") -> list[WeightMapping]:
    config = stack.config
    check_options(stack, {"scan=True": config.scan}, "Unroll its blocks first: models.unroll_layers(stack).")
    other_size = config.memory_size not in (None, config.width)
    check_options(
        stack,
        {f"memory_size={config.memory_size}": other_size},
        "In PyTorch a memory has the width of the decoder.",
    )
    mappings = [
        mapping
        for i in range(config.depth)
        for mapping in _block_mappings(config, f"{jax_path}blocks.rest.{i}.", f"{torch_path}layers.{i}.")
    ]
    if not config.has_final_norm:
        return mappings
    biases = [same(f"{jax_path}final_norm.bias", f"{torch_path}norm.bias")] if config.has_bias("norm") else []
    return [*mappings, same(f"{jax_path}final_norm.scale", f"{torch_path}norm.weight"), *biases]


def _pair_mappings(pair: EncoderDecoderStack) -> Sequence[WeightMapping]:
    stacks = {"encoder.": pair.encoder, "decoder.": pair.decoder}
    return [mapping for path, stack in stacks.items() for mapping in _stack_mappings(stack, path, path)]


def _converters(role: str) -> tuple[LayerConverter, LayerConverter]:
    """Converters of one layer and of a stack, of an encoder or a decoder."""

    def fits(stack: TransformerStack) -> bool:
        return _role(stack) == role

    layer = LayerConverter(
        LAYERS[role],
        TransformerLayer,
        partial(_make, TransformerLayer),
        _layer_jax_options,
        _layer_torch_options,
        _layer_mappings,
        fits,
    )
    stack = LayerConverter(
        f"Transformer{role}",
        TransformerStack,
        partial(_make, TransformerStack),
        _stack_jax_options,
        _stack_torch_options,
        _stack_mappings,
        fits,
    )
    return layer, stack


PAIR = LayerConverter(
    "Transformer", EncoderDecoderStack, _make_pair, _pair_jax_options, _pair_torch_options, _pair_mappings
)
LAYER_CONVERTERS, STACK_CONVERTERS = zip(*(_converters(role) for role in LAYERS), strict=True)
TRANSFORMERS = (PAIR, *LAYER_CONVERTERS, *STACK_CONVERTERS)
"""Layers come before stacks, as the first converter that fits is used: a `TransformerLayer` is a `TransformerStack`."""
