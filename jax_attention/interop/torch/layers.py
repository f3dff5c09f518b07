"""Converters of the layers without a story: linear, norms, embedding."""

from __future__ import annotations

from typing import Any

from flax import nnx

from jax_attention.interop.torch.converter import Kind, refuse
from jax_attention.interop.torch.tensors import import_torch
from jax_attention.interop.weight_mapping import Entry, same, turned
from jax_attention.nn.linear import Linear
from jax_attention.nn.norms import LayerNorm, RMSNorm

# --- Linear ----------------------------------------------------------------------------------------------------------


def _linear_options(module: Any) -> dict[str, Any]:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "use_bias": module.bias is not None,
    }


def _their_linear_options(layer: nnx.Linear) -> dict[str, Any]:
    return {"in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias is not None}


def _linear_entries(layer: nnx.Linear) -> list[Entry]:
    return [turned("kernel", "weight"), *_bias(layer)]


def _bias(layer: Any) -> list[Entry]:
    return [] if layer.bias is None else [same("bias", "bias")]


LINEAR = Kind("Linear", nnx.Linear, Linear, _linear_options, _their_linear_options, _linear_entries)

# --- Norms -----------------------------------------------------------------------------------------------------------


def _norm_size(module: Any) -> int:
    refuse(
        module,
        {
            "a normalized_shape of several axes": len(module.normalized_shape) != 1,
            "elementwise_affine=False": not module.elementwise_affine,
        },
        "Ours norm the last axis and have a scale. Without one there are no numbers to convert: "
        "nnx.LayerNorm(size, use_scale=False, use_bias=False, rngs=rngs).",
    )
    return module.normalized_shape[0]


def _layer_norm_options(module: Any) -> dict[str, Any]:
    return {"num_features": _norm_size(module), "epsilon": module.eps, "use_bias": module.bias is not None}


def _their_layer_norm_options(layer: nnx.LayerNorm) -> dict[str, Any]:
    return {"normalized_shape": layer.scale.shape[0], "eps": layer.epsilon, "bias": layer.bias is not None}


def _layer_norm_entries(layer: nnx.LayerNorm) -> list[Entry]:
    return [same("scale", "weight"), *_bias(layer)]


def _rms_norm_options(module: Any) -> dict[str, Any]:
    """`eps` None is the epsilon of the dtype PyTorch computes in: at least float32, whatever its manual says."""
    torch, size = import_torch(), _norm_size(module)
    wide = torch.promote_types(module.weight.dtype, torch.float32)
    return {"num_features": size, "epsilon": torch.finfo(wide).eps if module.eps is None else module.eps}


def _their_rms_norm_options(layer: nnx.RMSNorm) -> dict[str, Any]:
    return {"normalized_shape": layer.scale.shape[0], "eps": layer.epsilon}


def _rms_norm_entries(layer: nnx.RMSNorm) -> list[Entry]:
    return [same("scale", "weight")]


LAYER_NORM = Kind(
    "LayerNorm", nnx.LayerNorm, LayerNorm, _layer_norm_options, _their_layer_norm_options, _layer_norm_entries
)
RMS_NORM = Kind("RMSNorm", nnx.RMSNorm, RMSNorm, _rms_norm_options, _their_rms_norm_options, _rms_norm_entries)

# --- Embedding -------------------------------------------------------------------------------------------------------


def _embedding_options(module: Any) -> dict[str, Any]:
    refuse(
        module,
        {
            "padding_idx": module.padding_idx is not None,
            "max_norm": module.max_norm is not None,
            "scale_grad_by_freq": module.scale_grad_by_freq,
        },
        "nnx.Embed has the numbers only. max_norm changes the table by using it; the others change gradients alone: "
        "set padding_idx = None or scale_grad_by_freq = False first, and treat the gradient of the table yourself.",
    )
    return {"num_embeddings": module.num_embeddings, "features": module.embedding_dim}


def _their_embedding_options(layer: nnx.Embed) -> dict[str, Any]:
    return {"num_embeddings": layer.num_embeddings, "embedding_dim": layer.features}


def _embedding_entries(layer: nnx.Embed) -> list[Entry]:
    return [same("embedding", "weight")]


EMBEDDING = Kind("Embedding", nnx.Embed, nnx.Embed, _embedding_options, _their_embedding_options, _embedding_entries)
