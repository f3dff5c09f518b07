"""The four functions that convert a layer or its weights, by the table `CONVERTERS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from jax_attention.core.checks import check_instance
from jax_attention.core.tree_paths import arrays_by_path, list_problems, replace_arrays
from jax_attention.interop.torch.attention import ATTN, MULTI_HEAD
from jax_attention.interop.torch.layers import EMBEDDING, LAYER_NORM, LINEAR, RECURRENT, RMS_NORM, LayerConverter
from jax_attention.interop.torch.tensors import import_torch, to_jax, to_numpy, to_tensor
from jax_attention.interop.torch.transformer import TRANSFORMERS
from jax_attention.interop.weight_mapping import WeightMapping, to_jax_arrays, to_torch_arrays

CONVERTERS: tuple[LayerConverter, ...] = (
    *TRANSFORMERS,
    MULTI_HEAD,
    ATTN,
    *RECURRENT,
    LINEAR,
    LAYER_NORM,
    RMS_NORM,
    EMBEDDING,
)


def from_torch(module: Any) -> nnx.Module:
    """Convert a layer of PyTorch: the same sizes, options and numbers.

        from_torch(module)(x)  =  module(x)            to rounding; parameters are equal bit by bit

    Parameters keep their dtype, bfloat16 too. Two things are not converted. The layout: JAX layers are batch first,
    with states `[..., layers * directions, H]`, whatever `batch_first` says. And dropout: all rates are dropped, so the
    layer equals `module.eval()`. In multi-head attention dropout is an argument of the call, `layer(x,
    dropout=Dropout(rng, rate))`; between recurrent layers there is none.

    Args:
        module: a `torch.nn.MultiheadAttention`, `GRU`, `LSTM`, `Linear`, `LayerNorm`, `RMSNorm`, `Embedding`,
            `TransformerEncoderLayer`, `TransformerDecoderLayer`, `TransformerEncoder`, `TransformerDecoder` or
            `Transformer`, or of a subclass that leaves `forward` alone.

    Returns:
        `nn.MultiHeadAttention`, `nn.GRU`, `nn.LSTM`, `nn.Linear`, a layer norm or RMS norm, `nnx.Embed`, or for
        Transformers a `models.TransformerLayer`, `models.TransformerStack` or `models.EncoderDecoderStack`, with copies
        of the arrays. As in PyTorch, no Transformer holds a mask: `stack(x, mask=masks.causal())`.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if this library has no such layer.
        ValueError: if one of its options has no counterpart, or its parameters are float64 without `jax_enable_x64`.

    Example:
        >>> import numpy as np, torch
        >>> from jax_attention import interop
        >>> module = torch.nn.GRU(3, 5, bidirectional=True, batch_first=True)
        >>> x = np.ones((2, 4, 3), np.float32)
        >>> outputs, state = interop.from_torch(module)(x)
        >>> float(interop.difference(outputs, module(torch.tensor(x))[0]).max_abs) < 1e-6
        True

    Reference:
        https://docs.pytorch.org/docs/stable/nn.html
    """
    converter = _converter_of_module(module)
    arrays = {name: to_jax(name, tensor) for name, tensor in module.state_dict().items()}
    options = converter.jax_options(module)
    dtype = next(iter(arrays.values())).dtype
    layer = jax.eval_shape(lambda: converter.make(**options, param_dtype=dtype, rngs=nnx.Rngs(0)))
    return from_state_dict(layer, arrays)


def from_state_dict(layer: nnx.Module, state_dict: Mapping[str, Any]) -> nnx.Module:
    """A copy of a layer with the numbers of a PyTorch state dictionary.

        to_state_dict(from_state_dict(layer, state_dict))  =  state_dict            bit by bit

    Args:
        layer: one that `from_torch` makes, or an `nn.Attn` with the location score, whose names are those of the
            tutorial's layer: `attn.weight`, `attn.bias`, `attn_combine.weight`, `attn_combine.bias`. It may be abstract
            (`jax.eval_shape(lambda: nn.GRU(3, 5, rngs=nnx.Rngs(0)))`).
        state_dict: tensors or NumPy arrays by PyTorch's names, without a prefix. They keep their dtype.

    Returns:
        A layer with the same options; `layer` and the tensors are not changed.

    Raises:
        TypeError: if the layer has no converter, or an array holds no floating-point numbers.
        ValueError: if names are missing or left over, shapes do not fit, or the layer has options that PyTorch lacks.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from flax import nnx
        >>> from jax_attention import interop, nn
        >>> layer = nn.Linear(2, 1, rngs=nnx.Rngs(0))
        >>> numbers = {"weight": np.float32([[2, 3]]), "bias": np.float32([1])}
        >>> interop.from_state_dict(layer, numbers)(jnp.ones(2))
        Array([6.], dtype=float32)

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html: state_dict.
    """
    check_instance("state_dict", state_dict, Mapping, "a dictionary of arrays", "Give module.state_dict().")
    expected = f"state_dict: expected the arrays of {_display_name(_converter_of_layer(layer))}"
    torch_arrays = {name: to_numpy(x) for name, x in state_dict.items()}
    jax_arrays = to_jax_arrays(_weight_mappings(layer), torch_arrays, expected)
    arrays = {name: to_jax(name, x) for name, x in jax_arrays.items()}
    return replace_arrays(layer, arrays, expected + " in the sizes of the layer")


def to_state_dict(layer: nnx.Module) -> dict[str, Any]:
    """The numbers of a layer under PyTorch's names and in its shapes, for `module.load_state_dict`.

        module.load_state_dict(to_state_dict(layer))

    It converts gradients as well: the gradient that `jax.grad` takes of a layer is a layer of the same structure.

    Args:
        layer: as in `from_state_dict`.

    Returns:
        Tensors on the CPU, copies in the dtypes of the parameters.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if the layer has no converter.
        ValueError: if the layer has parameters or sizes that PyTorch lacks.

    Example:
        >>> from flax import nnx
        >>> from jax_attention import interop, nn
        >>> layer = nn.MultiHeadAttention(2, 8, use_bias=False, rngs=nnx.Rngs(0))
        >>> {name: tuple(x.shape) for name, x in interop.to_state_dict(layer).items()}
        {'in_proj_weight': (24, 8), 'out_proj.weight': (8, 8)}

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html: load_state_dict.
    """
    jax_arrays = {name: to_numpy(x) for name, x in arrays_by_path(layer).items()}
    return {name: to_tensor(x) for name, x in to_torch_arrays(_weight_mappings(layer), jax_arrays).items()}


def to_torch(layer: nnx.Module) -> Any:
    """Convert a layer to PyTorch: the same sizes, options and numbers.

        to_torch(layer)(x)  =  layer(x)            to rounding; parameters are equal bit by bit

    Args:
        layer: one that `from_torch` makes; its rule must be one that the class in `torch.nn` has.

    Returns:
        A `torch.nn.Module` on the CPU, with `batch_first=True` where there is a choice, without dropout.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if the layer has no converter, or PyTorch no such class.
        ValueError: if the layer has parameters, sizes or a rule that PyTorch lacks.

    Example:
        >>> from flax import nnx
        >>> from jax_attention import interop, nn
        >>> interop.to_torch(nn.LSTM(3, 5, num_layers=2, rngs=nnx.Rngs(0)))
        LSTM(3, 5, num_layers=2, batch_first=True)

    Reference:
        https://docs.pytorch.org/docs/stable/nn.html
    """
    torch, converter = import_torch(), _converter_of_layer(layer)
    if converter.torch_name is None:
        raise TypeError(
            f"layer: expected one that torch.nn has, got {type(layer).__name__}. Use to_state_dict(layer) and "
            "load_state_dict of a module of your own."
        )
    state_dict = to_state_dict(layer)
    # On the meta device the constructor draws no random numbers, so the user's generator keeps its state.
    with torch.device("meta"):
        module = getattr(torch.nn, converter.torch_name)(**converter.torch_options(layer))
    module.load_state_dict(state_dict, assign=True)
    return module


def _converter_of_module(module: Any) -> LayerConverter:
    torch = import_torch()
    for converter in CONVERTERS:
        base = getattr(torch.nn, converter.torch_name or "", None)
        if base is not None and isinstance(module, base) and type(module).forward is base.forward:
            return converter
    supported = ", ".join(converter.torch_name for converter in CONVERTERS if converter.torch_name)
    raise TypeError(
        f"module: expected one of torch.nn: {supported}, or of a subclass with the same forward, got "
        f"{type(module).__name__}. Convert its parts; for the tutorial's attention layer use "
        "from_state_dict(nn.Attn(...), module.state_dict())."
    )


def _converter_of_layer(layer: Any) -> LayerConverter:
    for converter in CONVERTERS:
        if isinstance(layer, converter.jax_class) and converter.fits(layer):
            return converter
    supported = ", ".join(dict.fromkeys(converter.jax_class.__name__ for converter in CONVERTERS))
    raise TypeError(
        f"layer: expected one of {supported}, got {type(layer).__name__}. Convert the layers of a model one by one."
    )


def _display_name(converter: LayerConverter) -> str:
    return f"torch.nn.{converter.torch_name}" if converter.torch_name else "the tutorial's attention layer"


def _weight_mappings(layer: nnx.Module) -> list[WeightMapping]:
    """The table of a layer; parameters that are not in it are an error, as PyTorch has no place for them."""
    converter = _converter_of_layer(layer)
    mappings, parameters = converter.weight_mappings(layer), arrays_by_path(layer).keys()
    known = {name for mapping in mappings for name in mapping.jax_names}
    problems = {"missing": sorted(known - parameters), "not in PyTorch": sorted(parameters - known)}
    if any(problems.values()):
        raise ValueError(
            f"layer: expected the parameters of {_display_name(converter)}, got {list_problems(problems)}. Make the "
            "layer with the options of PyTorch's; what it has beyond them must be kept apart."
        )
    return mappings
