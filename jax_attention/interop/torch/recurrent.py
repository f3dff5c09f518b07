"""Converters of GRU and LSTM: per layer and direction two kernels and two biases, the gates in the same order."""

from __future__ import annotations

from typing import Any

from jax_attention.interop.torch.converter import Kind, refuse
from jax_attention.interop.weight_mapping import Entry, same, turned
from jax_attention.nn.recurrent import GRU, LSTM

SIDES = (("input", "ih"), ("hidden", "hh"))
"""Ours and theirs."""


def _options(module: Any) -> dict[str, Any]:
    refuse(module, {"proj_size": module.proj_size}, "Outputs of nn.LSTM have hidden_size entries: use proj_size=0.")
    return {
        "input_size": module.input_size,
        "hidden_size": module.hidden_size,
        "num_layers": module.num_layers,
        "bidirectional": module.bidirectional,
        "use_bias": module.bias,
    }


def _their_options(layer: GRU | LSTM) -> dict[str, Any]:
    names = ("input_size", "hidden_size", "num_layers", "bidirectional")
    return {name: getattr(layer, name) for name in names} | {"bias": layer.use_bias, "batch_first": True}


def _entries(layer: GRU | LSTM) -> list[Entry]:
    found = []
    for index in range(len(layer.cells)):
        number, direction = divmod(index, layer.directions)
        suffix = f"l{number}{'_reverse' if direction else ''}"
        found += [turned(f"cells.{index}.{ours}.kernel", f"weight_{theirs}_{suffix}") for ours, theirs in SIDES]
        if layer.use_bias:
            found += [same(f"cells.{index}.{ours}.bias", f"bias_{theirs}_{suffix}") for ours, theirs in SIDES]
    return found


RECURRENT = tuple(Kind(kind.__name__, kind, kind, _options, _their_options, _entries) for kind in (GRU, LSTM))
