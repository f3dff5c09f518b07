"""The four functions that carry a layer over, by the table `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from jax_attention.core.checks import check_instance
from jax_attention.core.tree_paths import arrays_by_path, list_problems, replace_arrays
from jax_attention.interop import entries
from jax_attention.interop.tensors import import_torch, to_jax, to_numpy, to_tensor
from jax_attention.interop.torch_modules.attention import ATTN, MULTI_HEAD
from jax_attention.interop.torch_modules.kind import Kind
from jax_attention.interop.torch_modules.layers import EMBEDDING, LAYER_NORM, LINEAR, RMS_NORM
from jax_attention.interop.torch_modules.recurrent import RECURRENT
from jax_attention.interop.torch_modules.transformer import TRANSFORMERS

KINDS: tuple[Kind, ...] = (*TRANSFORMERS, MULTI_HEAD, ATTN, *RECURRENT, LINEAR, LAYER_NORM, RMS_NORM, EMBEDDING)


def from_torch(module: Any) -> nnx.Module:
    """Our layer with the sizes, options and numbers of a layer of PyTorch.

        from_torch(module)(x)  =  module(x)            to rounding; the numbers are equal bit by bit

    Parameters keep their dtype, bfloat16 too. Two things are not carried over. The layout: ours is batch first, and
    states `[..., layers * directions, H]`, whatever `batch_first` says. And dropout: all rates are left behind, so
    `module.eval()` is what ours equals. In multi-head attention dropout belongs to our call, `layer(x,
    dropout=Dropout(rng, rate))`; between recurrent layers there is none.

    Args:
        module: a `torch.nn.MultiheadAttention`, `GRU`, `LSTM`, `Linear`, `LayerNorm`, `RMSNorm`, `Embedding`,
            `TransformerEncoderLayer`, `TransformerDecoderLayer`, `TransformerEncoder`, `TransformerDecoder` or
            `Transformer`, or of a subclass that leaves `forward` alone.

    Returns:
        `nn.MultiHeadAttention`, `nn.GRU`, `nn.LSTM`, `nn.Linear`, a layer norm or RMS norm, `nnx.Embed`, or for
        Transformers a `models.TransformerLayer`, `models.TransformerStack` or `models.EncoderDecoderStack`, with copies of the arrays. As in
        PyTorch, no Transformer holds a mask: `stack(x, mask=masks.causal())`.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if there is no layer for the module.
        ValueError: if one of its options has no counterpart, or it is in float64 and JAX is not.

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
    kind = _kind_of_module(module)
    numbers = {name: to_jax(name, tensor) for name, tensor in module.state_dict().items()}
    options = kind.our_options(module)
    dtype = next(iter(numbers.values())).dtype
    layer = jax.eval_shape(lambda: kind.make(**options, param_dtype=dtype, rngs=nnx.Rngs(0)))
    return from_state_dict(layer, numbers)


def from_state_dict(layer: nnx.Module, state_dict: Mapping[str, Any]) -> nnx.Module:
    """A copy of our layer with the numbers of a state dictionary of PyTorch.

        to_state_dict(from_state_dict(layer, state_dict))  =  state_dict            bit by bit

    Args:
        layer: one that `from_torch` makes, or an `nn.Attn` with the location score, whose names are those of the
            tutorial's layer: `attn.weight`, `attn.bias`, `attn_combine.weight`, `attn_combine.bias`. It may be abstract
            (`jax.eval_shape(lambda: nn.GRU(3, 5, rngs=nnx.Rngs(0)))`).
        state_dict: tensors or NumPy arrays by PyTorch's names, without a prefix. Their dtypes are kept.

    Returns:
        A layer of the same options in arrays of its own; `layer` stays as it is.

    Raises:
        TypeError: if the layer is none of ours, or an array holds no floating-point numbers.
        ValueError: if names are missing or left over, shapes do not fit, or the layer has what PyTorch's has not.

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
    what = f"state_dict: expected the arrays of {_named(_kind_of_layer(layer))}"
    numbers = {name: to_numpy(x) for name, x in state_dict.items()}
    arrays = entries.to_ours(_entries(layer), numbers, what)
    return replace_arrays(
        layer, {name: to_jax(name, x) for name, x in arrays.items()}, what + " in the sizes of the layer"
    )


def to_state_dict(layer: nnx.Module) -> dict[str, Any]:
    """The numbers of our layer by PyTorch's names and in its shapes, for `module.load_state_dict`.

        module.load_state_dict(to_state_dict(layer))

    Gradients too: those that `jax.grad` gives for a layer are a layer of the same structure.

    Args:
        layer: as in `from_state_dict`.

    Returns:
        Tensors on the CPU, in memory of their own and in the dtypes of the parameters.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if the layer is none of ours.
        ValueError: if the layer has parameters or sizes that PyTorch's cannot have.

    Example:
        >>> from flax import nnx
        >>> from jax_attention import interop, nn
        >>> layer = nn.MultiHeadAttention(2, 8, use_bias=False, rngs=nnx.Rngs(0))
        >>> {name: tuple(x.shape) for name, x in interop.to_state_dict(layer).items()}
        {'in_proj_weight': (24, 8), 'out_proj.weight': (8, 8)}

    Reference:
        https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html: load_state_dict.
    """
    ours = {name: to_numpy(x) for name, x in arrays_by_path(layer).items()}
    return {name: to_tensor(x) for name, x in entries.to_theirs(_entries(layer), ours).items()}


def to_torch(layer: nnx.Module) -> Any:
    """A layer of PyTorch with the sizes, options and numbers of ours.

        to_torch(layer)(x)  =  layer(x)            to rounding; the numbers are equal bit by bit

    Args:
        layer: one that `from_torch` makes; its rule must be one that PyTorch's layer has.

    Returns:
        A `torch.nn.Module` on the CPU, with `batch_first=True` where there is a choice, without dropout.

    Raises:
        ImportError: if PyTorch is not installed.
        TypeError: if the layer is none of ours, or PyTorch has none like it.
        ValueError: if the layer has parameters, sizes or a rule that PyTorch's cannot have.

    Example:
        >>> from flax import nnx
        >>> from jax_attention import interop, nn
        >>> interop.to_torch(nn.LSTM(3, 5, num_layers=2, rngs=nnx.Rngs(0)))
        LSTM(3, 5, num_layers=2, batch_first=True)

    Reference:
        https://docs.pytorch.org/docs/stable/nn.html
    """
    torch, kind = import_torch(), _kind_of_layer(layer)
    if kind.theirs is None:
        raise TypeError(
            f"layer: expected one that torch.nn has, got {type(layer).__name__}. Use to_state_dict(layer) and "
            "load_state_dict of a module of your own."
        )
    numbers = to_state_dict(layer)
    with torch.device("meta"):  # no numbers are drawn: the generator of the user stays where it is
        module = getattr(torch.nn, kind.theirs)(**kind.their_options(layer))
    module.load_state_dict(numbers, assign=True)
    return module


def _kind_of_module(module: Any) -> Kind:
    torch = import_torch()
    for kind in KINDS:
        base = getattr(torch.nn, kind.theirs or "", None)
        if base is not None and isinstance(module, base) and type(module).forward is base.forward:
            return kind
    supported = ", ".join(kind.theirs for kind in KINDS if kind.theirs)
    raise TypeError(
        f"module: expected one of torch.nn: {supported}, or of a subclass with the same forward, got "
        f"{type(module).__name__}. Convert its parts; for the tutorial's attention layer use "
        "from_state_dict(nn.Attn(...), module.state_dict())."
    )


def _kind_of_layer(layer: Any) -> Kind:
    for kind in KINDS:
        if isinstance(layer, kind.ours) and kind.fits(layer):
            return kind
    supported = ", ".join(dict.fromkeys(kind.ours.__name__ for kind in KINDS))
    raise TypeError(
        f"layer: expected one of {supported}, got {type(layer).__name__}. Convert the layers of a model one by one."
    )


def _named(kind: Kind) -> str:
    return f"torch.nn.{kind.theirs}" if kind.theirs else "the tutorial's attention layer"


def _entries(layer: nnx.Module) -> list[entries.Entry]:
    """The table of a layer, all of whose parameters it must know."""
    kind = _kind_of_layer(layer)
    found, held = kind.entries(layer), arrays_by_path(layer).keys()
    known = {name for entry in found for name in entry.ours}
    problems = {"missing": sorted(known - held), "not in PyTorch": sorted(held - known)}
    if any(problems.values()):
        raise ValueError(
            f"layer: expected the parameters of {_named(kind)}, got {list_problems(problems)}. Make the layer with the "
            "options of PyTorch's; what it has beyond them must be kept apart."
        )
    return found
