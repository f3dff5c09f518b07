"""Converters of GRU and LSTM: two kernels and two biases per layer and direction, with the gates in the same order."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.torch.converter import LayerConverter, check_options
from jax_attention.interop.weight_mapping import WeightMapping, same, transposed
from jax_attention.nn.recurrent import GRU, LSTM

PRODUCTS = (("input", "ih"), ("hidden", "hh"))
"""The two linear layers of a cell: name here, name in PyTorch."""


def _jax_options(module: Any) -> dict[str, Any]:
    unsupported = {"proj_size": module.proj_size}
    check_options(module, unsupported, "Outputs of nn.LSTM have hidden_size entries: use proj_size=0.")
    return {
        "input_size": module.input_size,
        "hidden_size": module.hidden_size,
        "num_layers": module.num_layers,
        "bidirectional": module.bidirectional,
        "use_bias": module.bias,
    }


def _torch_options(layer: GRU | LSTM) -> dict[str, Any]:
    names = ("input_size", "hidden_size", "num_layers", "bidirectional")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.use_bias, "batch_first": True}


def _weight_mappings(layer: GRU | LSTM) -> list[WeightMapping]:
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
    LayerConverter(cls.__name__, cls, cls, _jax_options, _torch_options, _weight_mappings) for cls in (GRU, LSTM)
)
