"""Converters of attention: `torch.nn.MultiheadAttention`, and the attention layer of PyTorch's translation tutorial."""

from __future__ import annotations

from typing import Any

from jax_attention.core.checks import fail_unless
from jax_attention.interop.torch.layers import LayerConverter, check_options
from jax_attention.interop.weight_mapping import WeightMapping, reshaped, same, split, transposed
from jax_attention.nn.attn import Attn
from jax_attention.nn.freeze import unfreeze
from jax_attention.nn.linear import PackedProjections
from jax_attention.nn.multi_head import MultiHeadAttention
from jax_attention.nn.scores import Location
from jax_attention.normalizers import Softmax, softmax

# --- Several heads ---------------------------------------------------------------------------------------------------

OPERANDS = ("query", "key", "value")
BIAS_KV = (("bias_k", "bias_k"), ("bias_v", "bias_v"))
"""The learned key and value of `add_bias_kv`: name here, name in PyTorch."""


def _heads_jax_options(module: Any) -> dict[str, Any]:
    return {
        "num_heads": module.num_heads,
        "size": module.embed_dim,
        "key_size": module.kdim,
        "value_size": module.vdim,
        "packed": module.in_proj_weight is not None,
        "use_bias": module.in_proj_bias is not None,
        "bias_kv": module.bias_k is not None,
        "normalize": softmax(plus_one=True) if module.add_zero_attn else None,
    }


def _heads_torch_options(layer: MultiHeadAttention) -> dict[str, Any]:
    rule = {name: unfreeze(part) for name, part in layer.rule.items()}
    normalize = rule["normalize"] or softmax()
    is_softmax = isinstance(normalize, Softmax) and normalize.sinks is None
    check_options(
        layer,
        {
            "rope": layer.rope is not None,
            "a score": rule["score"] is not None,
            "a mask": rule["mask"] is not None,
            "mods": len(layer.mods) > 0,
            f"normalize={normalize!r}": not is_softmax,
        },
        "In PyTorch masks and mods belong to the call; to_state_dict(layer) has the numbers alone.",
    )
    size, key_size, value_size = _sizes(layer)
    return {
        "embed_dim": size,
        "num_heads": layer.num_heads,
        "kdim": key_size,
        "vdim": value_size,
        "bias": layer.out.bias is not None,
        "add_bias_kv": layer.bias_k is not None,
        "add_zero_attn": normalize.plus_one,
        "batch_first": True,
    }


def _heads_mappings(layer: MultiHeadAttention) -> list[WeightMapping]:
    """PyTorch packs the three kernels whenever their input sizes are equal; here it is an option, `packed`."""
    size, key_size, value_size = _sizes(layer)
    check_options(
        layer,
        {
            f"kv_heads={layer.kv_heads} for {layer.num_heads} heads": layer.kv_heads != layer.num_heads,
            f"head_size={layer.head_size}": layer.head_size * layer.num_heads != size,
            f"output_size={layer.out.out_features}": layer.out.out_features != size,
            "head_norm": layer.query_norm is not None,
            "a bias in some places only": (layer.out.bias is None) != (_first_bias(layer) is None),
        },
        "MultiheadAttention of PyTorch has as many key heads as query heads, and D = num_heads * head_size.",
    )
    kernels = [f"projections.{name}.kernel" for name in OPERANDS]
    if isinstance(layer.projections, PackedProjections):
        mappings = [transposed("projections.joined.kernel", "in_proj_weight")]
    elif (key_size, value_size) == (size, size):
        mappings = [split(kernels, "in_proj_weight", [size] * 3)]
    else:
        weights = [f"{name[0]}_proj_weight" for name in OPERANDS]
        mappings = [transposed(*names) for names in zip(kernels, weights, strict=True)]
    mappings += [transposed("out.kernel", "out_proj.weight"), *_heads_biases(layer, size)]
    if layer.bias_k is None:
        return mappings
    shapes = ((1, layer.num_heads, layer.head_size), (1, 1, size))
    return [*mappings, *(reshaped(jax, torch, *shapes) for jax, torch in BIAS_KV)]


def _heads_biases(layer: MultiHeadAttention, size: int) -> list[WeightMapping]:
    if layer.out.bias is None:
        return []
    if isinstance(layer.projections, PackedProjections):
        mapping = same("projections.joined.bias", "in_proj_bias")
    else:
        mapping = split([f"projections.{name}.bias" for name in OPERANDS], "in_proj_bias", [size] * 3)
    return [mapping, same("out.bias", "out_proj.bias")]


def _first_bias(layer: MultiHeadAttention) -> Any:
    projections = layer.projections
    return (projections.joined if isinstance(projections, PackedProjections) else projections.query).bias


def _sizes(layer: MultiHeadAttention) -> tuple[int, int, int]:
    """Features of the inputs query, key and value."""
    projections = layer.projections
    if isinstance(projections, PackedProjections):
        return (projections.joined.in_features,) * 3
    return projections.query.in_features, projections.key.in_features, projections.value.in_features


MULTI_HEAD = LayerConverter(
    "MultiheadAttention",
    MultiHeadAttention,
    MultiHeadAttention,
    _heads_jax_options,
    _heads_torch_options,
    _heads_mappings,
)

# --- The tutorial's layer --------------------------------------------------------------------------------------------

LINEARS = (("score", "attn"), ("combine", "attn_combine"))
"""The two linear layers: name here, name in the tutorial."""


def _attn_mappings(layer: Attn) -> list[WeightMapping]:
    fail_unless(
        isinstance(layer.score, Location) and layer.join,
        "layer: expected an nn.Attn as it is by default, with nn.Location and join=True, as in PyTorch's tutorial, got "
        f"score {type(layer.score).__name__} and join={layer.join}. Other scores have no names in PyTorch.",
    )
    kernels = [transposed(f"{jax}.kernel", f"{torch}.weight") for jax, torch in LINEARS]
    return kernels + [same(f"{jax}.bias", f"{torch}.bias") for jax, torch in LINEARS]


ATTN = LayerConverter(None, Attn, None, None, None, _attn_mappings)
