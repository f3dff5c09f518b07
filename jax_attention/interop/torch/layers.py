"""Converters of linear layers, norms and embeddings."""

from __future__ import annotations

from typing import Any

from flax import nnx

from jax_attention.interop.torch.converter import LayerConverter, check_options
from jax_attention.interop.torch.tensors import import_torch
from jax_attention.interop.weight_mapping import WeightMapping, same, transposed
from jax_attention.nn.linear import Linear
from jax_attention.nn.norms import LayerNorm, RMSNorm

# --- Linear ----------------------------------------------------------------------------------------------------------


def _linear_jax_options(module: Any) -> dict[str, Any]:
    return {
        "in_features": module.in_features,
        "out_features": module.out_features,
        "use_bias": module.bias is not None,
    }


def _linear_torch_options(layer: nnx.Linear) -> dict[str, Any]:
    return {"in_features": layer.in_features, "out_features": layer.out_features, "bias": layer.bias is not None}


def _linear_mappings(layer: nnx.Linear) -> list[WeightMapping]:
    return [transposed("kernel", "weight"), *_bias(layer)]


def _bias(layer: Any) -> list[WeightMapping]:
    return [] if layer.bias is None else [same("bias", "bias")]


LINEAR = LayerConverter("Linear", nnx.Linear, Linear, _linear_jax_options, _linear_torch_options, _linear_mappings)

# --- Norms -----------------------------------------------------------------------------------------------------------


def _norm_size(module: Any) -> int:
    check_options(
        module,
        {
            "a normalized_shape of several axes": len(module.normalized_shape) != 1,
            "elementwise_affine=False": not module.elementwise_affine,
        },
        "Norms here are over the last axis and have a scale. Without one there are no numbers to convert: "
        "nnx.LayerNorm(size, use_scale=False, use_bias=False, rngs=rngs).",
    )
    return module.normalized_shape[0]


def _layer_norm_jax_options(module: Any) -> dict[str, Any]:
    return {"num_features": _norm_size(module), "epsilon": module.eps, "use_bias": module.bias is not None}


def _layer_norm_torch_options(layer: nnx.LayerNorm) -> dict[str, Any]:
    return {"normalized_shape": layer.scale.shape[0], "eps": layer.epsilon, "bias": layer.bias is not None}


def _layer_norm_mappings(layer: nnx.LayerNorm) -> list[WeightMapping]:
    return [same("scale", "weight"), *_bias(layer)]


def _rms_norm_jax_options(module: Any) -> dict[str, Any]:
    """`eps=None` stands for the epsilon of the dtype of the sum, which is at least float32; measured with bfloat16
    weights, although PyTorch's manual names the epsilon of the input's dtype.
    """
    torch, size = import_torch(), _norm_size(module)
    sum_dtype = torch.promote_types(module.weight.dtype, torch.float32)
    return {"num_features": size, "epsilon": torch.finfo(sum_dtype).eps if module.eps is None else module.eps}


def _rms_norm_torch_options(layer: nnx.RMSNorm) -> dict[str, Any]:
    return {"normalized_shape": layer.scale.shape[0], "eps": layer.epsilon}


def _rms_norm_mappings(layer: nnx.RMSNorm) -> list[WeightMapping]:
    return [same("scale", "weight")]


LAYER_NORM = LayerConverter(
    "LayerNorm", nnx.LayerNorm, LayerNorm, _layer_norm_jax_options, _layer_norm_torch_options, _layer_norm_mappings
)
RMS_NORM = LayerConverter(
    "RMSNorm", nnx.RMSNorm, RMSNorm, _rms_norm_jax_options, _rms_norm_torch_options, _rms_norm_mappings
)

# --- Embedding -------------------------------------------------------------------------------------------------------


def _embedding_jax_options(module: Any) -> dict[str, Any]:
    check_options(
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


def _embedding_torch_options(layer: nnx.Embed) -> dict[str, Any]:
    return {"num_embeddings": layer.num_embeddings, "embedding_dim": layer.features}


def _embedding_mappings(layer: nnx.Embed) -> list[WeightMapping]:
    return [same("embedding", "weight")]


EMBEDDING = LayerConverter(
    "Embedding", nnx.Embed, nnx.Embed, _embedding_jax_options, _embedding_torch_options, _embedding_mappings
)
