"""Converters of linear layers, norms, embeddings, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from jax_attention.core.checks import fail_unless
from jax_attention.interop.torch.tensors import import_torch
from jax_attention.interop.weight_mapping import WeightMapping, same, transposed
from jax_attention.nn.linear import Linear
from jax_attention.nn.norms import LayerNorm, RMSNorm
from jax_attention.nn.recurrent import GRU, LSTM


class LayerConverter(NamedTuple):
    """One layer of `torch.nn` and the layer of this library that computes the same."""

    torch_name: str | None
    """Name of the class in `torch.nn`. None where PyTorch has no such class, and only state dictionaries convert."""
    jax_class: type
    """Layers of this class or a subclass are converted."""
    make: Callable[..., Any] | None
    """Makes the JAX layer from `jax_options(module)`, `param_dtype` and `rngs`."""
    jax_options: Callable[[Any], dict[str, Any]] | None
    """Arguments of `make`, from a torch module."""
    torch_options: Callable[[Any], dict[str, Any]] | None
    """Arguments of the class in `torch.nn`, from a JAX layer."""
    weight_mappings: Callable[[Any], list[WeightMapping]]
    """The table of weights of a JAX layer."""
    fits: Callable[[Any], bool] = lambda layer: True
    """Whether this converter is the one for a layer of its class."""


def check_options(module: Any, unsupported: dict[str, Any], cure: str) -> None:
    """Refuse a layer that has options which the other library lacks; the error lists those that are set."""
    present = [name for name, is_set in unsupported.items() if is_set]
    fail_unless(
        not present,
        f"{type(module).__name__}: expected a layer that both libraries have, got one with {', '.join(present)}. "
        f"{cure}",
    )


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


# --- GRU and LSTM: two kernels and two biases per layer and direction, gates in the same order ------------------------

PRODUCTS = (("input", "ih"), ("hidden", "hh"))
"""The two linear layers of a cell: name here, name in PyTorch."""


def _recurrent_jax_options(module: Any) -> dict[str, Any]:
    unsupported = {"proj_size": module.proj_size}
    check_options(module, unsupported, "Outputs of nn.LSTM have hidden_size entries: use proj_size=0.")
    return {
        "input_size": module.input_size,
        "hidden_size": module.hidden_size,
        "num_layers": module.num_layers,
        "bidirectional": module.bidirectional,
        "use_bias": module.bias,
    }


def _recurrent_torch_options(layer: GRU | LSTM) -> dict[str, Any]:
    names = ("input_size", "hidden_size", "num_layers", "bidirectional")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.use_bias, "batch_first": True}


def _recurrent_weight_mappings(layer: GRU | LSTM) -> list[WeightMapping]:
    mappings = []
    for index in range(len(layer.cells)):
        number, direction = divmod(index, layer.directions)
        suffix = f"l{number}{'_reverse' if direction else ''}"
        cell = f"cells.{index}"
        mappings += [transposed(f"{cell}.{jax}.kernel", f"weight_{torch}_{suffix}") for jax, torch in PRODUCTS]
        if layer.use_bias:
            mappings += [same(f"{cell}.{jax}.bias", f"bias_{torch}_{suffix}") for jax, torch in PRODUCTS]
    return mappings


RECURRENT = tuple(
    LayerConverter(cls.__name__, cls, cls, _recurrent_jax_options, _recurrent_torch_options, _recurrent_weight_mappings)
    for cls in (GRU, LSTM)
)
