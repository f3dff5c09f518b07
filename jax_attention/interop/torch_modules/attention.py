"""Converters of attention: `torch.nn.MultiheadAttention`, and the attention layer of PyTorch's translation tutorial."""

from __future__ import annotations

from typing import Any

from jax_attention.core.checks import fail_unless
from jax_attention.interop.entries import Entry, parted, reshaped, same, turned
from jax_attention.interop.torch_modules.kind import Kind, refuse
from jax_attention.nn.attn import Attn
from jax_attention.nn.freeze import unfreeze
from jax_attention.nn.multi_head import MultiHeadAttention
from jax_attention.nn.projections import PackedProjections
from jax_attention.nn.scores import Location
from jax_attention.normalizers import Softmax, softmax

# --- Several heads ---------------------------------------------------------------------------------------------------

PARTS = ("query", "key", "value")


def _heads_options(module: Any) -> dict[str, Any]:
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


def _their_heads_options(layer: MultiHeadAttention) -> dict[str, Any]:
    rule = {name: unfreeze(part) for name, part in layer.rule.items()}
    normalize = rule["normalize"] or softmax()
    plain = isinstance(normalize, Softmax) and normalize.sinks is None
    refuse(
        layer,
        {
            "rope": layer.rope is not None,
            "a score": rule["score"] is not None,
            "a mask": rule["mask"] is not None,
            "mods": len(layer.mods) > 0,
            f"normalize={normalize!r}": not plain,
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


def _heads_entries(layer: MultiHeadAttention) -> list[Entry]:
    """Theirs are packed where the three sizes are one, ours where asked for."""
    size, key_size, value_size = _sizes(layer)
    refuse(
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
    kernels = [f"projections.{part}.kernel" for part in PARTS]
    if isinstance(layer.projections, PackedProjections):
        found = [turned("projections.joined.kernel", "in_proj_weight")]
    elif (key_size, value_size) == (size, size):
        found = [parted(kernels, "in_proj_weight", [size] * 3)]
    else:
        names = [f"{part[0]}_proj_weight" for part in PARTS]
        found = [turned(*names) for names in zip(kernels, names, strict=True)]
    shapes = ((1, layer.num_heads, layer.head_size), (1, 1, size))
    extra = [reshaped(name, name, *shapes) for name in ("bias_k", "bias_v")]
    found += [turned("out.kernel", "out_proj.weight"), *_heads_biases(layer, size)]
    return found if layer.bias_k is None else [*found, *extra]


def _heads_biases(layer: MultiHeadAttention, size: int) -> list[Entry]:
    if layer.out.bias is None:
        return []
    if isinstance(layer.projections, PackedProjections):
        entry = same("projections.joined.bias", "in_proj_bias")
    else:
        entry = parted([f"projections.{part}.bias" for part in PARTS], "in_proj_bias", [size] * 3)
    return [entry, same("out.bias", "out_proj.bias")]


def _first_bias(layer: MultiHeadAttention) -> Any:
    inner = layer.projections
    return (inner.joined if isinstance(inner, PackedProjections) else inner.query).bias


def _sizes(layer: MultiHeadAttention) -> tuple[int, int, int]:
    """Features of the inputs query, key, value."""
    inner = layer.projections
    if isinstance(inner, PackedProjections):
        return (inner.joined.in_features,) * 3
    return inner.query.in_features, inner.key.in_features, inner.value.in_features


MULTI_HEAD = Kind(
    "MultiheadAttention",
    MultiHeadAttention,
    MultiHeadAttention,
    _heads_options,
    _their_heads_options,
    _heads_entries,
)

# --- The tutorial's layer --------------------------------------------------------------------------------------------

LINEARS = (("score", "attn"), ("combine", "attn_combine"))
"""Ours and theirs."""


def _attn_entries(layer: Attn) -> list[Entry]:
    fail_unless(
        isinstance(layer.score, Location) and layer.join,
        "layer: expected an nn.Attn as it is by default, with nn.Location and join=True, as in PyTorch's tutorial, got "
        f"score {type(layer.score).__name__} and join={layer.join}. Other scores have no names in PyTorch.",
    )
    kernels = [turned(f"{ours}.kernel", f"{theirs}.weight") for ours, theirs in LINEARS]
    return kernels + [same(f"{ours}.bias", f"{theirs}.bias") for ours, theirs in LINEARS]


ATTN = Kind(None, Attn, None, None, None, _attn_entries)
