"""What a folder of adapters holds, made from adapters: arrays under the names of PEFT, and fields of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.core.text import list_names
from jax_attention.interop.hf.adapter_base import BaseModel
from jax_attention.interop.hf.adapter_file import (
    BASE,
    HEAD,
    KERNEL,
    LINEAR_FACTORS,
    PREFIX,
    TABLE_FACTORS,
    TABLES,
    layer_and_leaf,
    mapping_of,
    untied_mappings,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.lora_factors import to_peft_factors, to_peft_magnitudes
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.nn import Adapters


class AdapterWriter:
    """What a folder of adapters will hold: arrays by name, the rank of each adapted layer, modules saved whole."""

    def __init__(self, family: Family, base: BaseModel, adapters: Adapters):
        self.family, self.base, self.adapters = family, base, adapters
        self.mappings = family.weight_mappings(base.config)
        self.arrays: dict[str, np.ndarray] = {}
        self.ranks: dict[str, int] = {}
        self.whole_modules: set[str] = set()
        self.has_conv1d, self.biases = False, "none"
        self.changed = self._changed_arrays()
        magnitudes = adapters.magnitude
        missing = set() if magnitudes is None else adapters.down.keys() - magnitudes.keys()
        fail_unless(
            not missing,
            f"adapters: expected a magnitude for every adapted layer or for none, got none for {list_names(missing)}.",
        )

    def fields(self) -> dict[str, Any]:
        """Fields of `adapter_config.json`."""
        return {
            "task_type": self.family.peft_task,
            "fan_in_fan_out": self.has_conv1d,
            "bias": self.biases,
            "use_dora": self.adapters.magnitude is not None,
        }

    def layer(self, weight: str) -> str:
        """PEFT's name of the layer of a weight."""
        return layer_and_leaf(self.family, weight)[0][0]

    def write_factors(self) -> None:
        """Write factors and magnitudes of all kernels and tables."""
        left = set(self.adapters.down)
        for mapping in self.mappings:
            names = [name.removesuffix(KERNEL) for name in mapping.jax_names]
            if mapping.jax_names[0].endswith(KERNEL) and not left.isdisjoint(names):
                left -= set(names)
                self._write_kernels(mapping, names)
            elif mapping.jax_names[0] in TABLES and mapping.jax_names[0] in left:
                left.remove(mapping.jax_names[0])
                self._write_table(mapping)
        fail_unless(not left, f"adapters: expected layers that PEFT adapts, got {list_names(sorted(left))}.")

    def _write_kernels(self, mapping: WeightMapping, layers: list[str]) -> None:
        adapters, shapes = self.adapters, self.base.shapes
        factors = [(adapters.down[x], adapters.up[x]) if x in adapters.down else None for x in layers]
        first, seconds = to_peft_factors(mapping, factors, [shapes[name].shape for name in mapping.jax_names])
        self.has_conv1d |= mapping.is_conv1d
        magnitudes = lengths = [None] * len(seconds)
        if adapters.magnitude is not None:
            kernels = self.base.numpy(mapping.jax_names, adapters.replaced)
            magnitudes = to_peft_magnitudes(mapping, [adapters.magnitude.get(layer) for layer in layers], kernels)
            lengths = to_peft_magnitudes(mapping, [None] * len(layers), kernels)
        for weight, second, magnitude, length in zip(mapping.torch_names, seconds, magnitudes, lengths, strict=True):
            changes = np.any(second) or (magnitude is not None and not np.allclose(magnitude, length, atol=0))
            if weight in self.changed and not changes:
                continue  # saved whole, next to adapted layers of the same kernel
            self._write(self.layer(weight), LINEAR_FACTORS, first.T, second)
            if magnitude is not None:
                self.arrays[f"{PREFIX}{self.layer(weight)}.lora_magnitude_vector"] = np.ascontiguousarray(magnitude)

    def _write_table(self, mapping: WeightMapping) -> None:
        """The factors of a table; a tied head gets the same, as PEFT adapts the two apart."""
        (name,), (weight,) = mapping.jax_names, mapping.torch_names
        down, up = (np.asarray(x[name]) for x in (self.adapters.down, self.adapters.up))
        (rows,) = mapping.to_torch([down])
        self._write(self.layer(weight), TABLE_FACTORS, rows.T, up.T)
        magnitude = (self.adapters.magnitude or {}).get(name)
        is_tied = name == "embedding" and self.base.is_tied
        if magnitude is not None:
            fail_unless(
                not is_tied and len(rows) == len(down),
                f"adapters: expected no magnitude of {name!r}, got one. PEFT has none for a tied table, and counts "
                "rows that no token reads. For a tied one: models.untie_head(model).",
            )
            self.arrays[f"{PREFIX}{self.layer(weight)}.lora_magnitude_vector"] = np.asarray(magnitude)
        if is_tied:
            self._write(self._tied_head(), LINEAR_FACTORS, up, down)

    def _write(self, layer: str, names: tuple[str, str], a: np.ndarray, b: np.ndarray) -> None:
        for name, x in zip(names, (a, b), strict=True):
            self.arrays[f"{PREFIX}{layer}.{name}"] = np.ascontiguousarray(x)
        self.ranks[layer] = len(a)

    def _tied_head(self) -> str:
        """PEFT's name of the head of a model whose head is tied."""
        return self.layer(mapping_of(untied_mappings(self.family, self.base.config), HEAD).torch_names[0])

    def write_replaced(self) -> None:
        """Write replaced arrays: biases by themselves, others with all arrays of the module that holds them."""
        for weight in self.changed:
            layer, leaf = self.layer(weight), weight.rpartition(".")[2]
            if leaf != "bias":
                fail_unless(
                    layer not in self.ranks,
                    f"adapters: expected a layer that is adapted or replaced, got both for {weight}: PEFT has one.",
                )
                fail_unless(layer != "", f"adapters: expected arrays of a module, got {weight}, which has none.")
                self.whole_modules.add(layer)
        for weight, x in self.changed.items():
            layer, leaf = self.layer(weight), weight.rpartition(".")[2]
            if leaf == "bias" and layer not in self.whole_modules:
                is_adapted = layer in self.ranks
                self.arrays[f"{PREFIX}{layer}{BASE if is_adapted else ''}.bias"] = np.ascontiguousarray(x)
                self.biases = "lora_only" if is_adapted and self.biases != "all" else "all"
        for mapping in self.mappings if self.whole_modules else ():
            for weight, x in self._torch_arrays(mapping, self.adapters.replaced).items():
                if (layer := self.layer(weight)) in self.whole_modules:
                    self.arrays[f"{PREFIX}{layer}.{weight.rpartition('.')[2]}"] = np.ascontiguousarray(x)
        if self.base.is_tied:
            self._write_tied_table()

    def _torch_arrays(self, mapping: WeightMapping, replaced: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
        """Arrays of Hugging Face by name, with those that the adapters replace or without."""
        arrays = mapping.to_torch(self.base.numpy(mapping.jax_names, replaced))
        return dict(zip(mapping.torch_names, arrays, strict=True))

    def _changed_arrays(self) -> dict[str, np.ndarray]:
        """Arrays of Hugging Face that differ from those of the base because the adapters replace them."""
        changed = {}
        for mapping in self.mappings:
            if self.adapters.replaced and not self.adapters.replaced.keys().isdisjoint(mapping.jax_names):
                old = self._torch_arrays(mapping, None)
                new = self._torch_arrays(mapping, self.adapters.replaced)
                changed |= {weight: x for weight, x in new.items() if not np.array_equal(x, old[weight])}
        return changed

    def _write_tied_table(self) -> None:
        """The embedding once more, as the head, which PEFT keeps apart."""
        table = self.layer(mapping_of(self.mappings, "embedding").torch_names[0])
        if table in self.whole_modules:
            self.whole_modules.add(self._tied_head())
            self.arrays[f"{PREFIX}{self._tied_head()}.weight"] = self.arrays[f"{PREFIX}{table}.weight"].copy()
