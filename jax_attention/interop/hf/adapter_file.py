"""The arrays of a file of adapters, taken one by one under the names that PEFT gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.text import list_names
from jax_attention.interop.hf.adapter_config import AdapterConfig
from jax_attention.interop.hf.family import Config, Family
from jax_attention.interop.hf.lora_factors import Factors
from jax_attention.interop.weight_mapping import WeightMapping

PREFIX, KERNEL = "base_model.model.", ".kernel"
BASE = ".base_layer"
"""PEFT's name for the layer inside an adapted one. A copy of its weight may be saved too, and its trained bias."""
TABLES = ("embedding", "position", "token_type")
"""Arrays that are looked up by row: PEFT has factors of another kind for them."""
HEAD = "head.kernel"
LINEAR_FACTORS, TABLE_FACTORS = ("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B")
"""Names of both factors of a linear layer and of a table, below the name of the layer."""


def layer_and_leaf(family: Family, weight: str) -> tuple[list[str], str]:
    """Names of a weight's layer in PEFT files, that in memory of transformers 5 first, and the name of the weight."""
    layer, _, leaf = weight.rpartition(".")
    return list(dict.fromkeys((family.names_in_memory.get(layer, layer), layer))), leaf


def untied_mappings(family: Family, config: Config) -> list[WeightMapping]:
    """The family's table of weights with those of the head, tied or not."""
    return family.weight_mappings(config.replace(tied_head=False))


def mapping_of(mappings: list[WeightMapping], jax_name: str) -> WeightMapping:
    """The mapping of one array."""
    return next(mapping for mapping in mappings if jax_name in mapping.jax_names)


class AdapterFile:
    """The arrays that are not taken yet, by their names in the file. All arguments named `layers` are the names of one
    layer, of which the file uses one.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], config: AdapterConfig):
        self.arrays, self.config = dict(arrays), config

    def layers(self) -> set[str]:
        """Names of all layers that have an array."""
        return {_layer_of(name) for name in self.arrays}

    def pop_factors(self, layers: Sequence[str], names: tuple[str, str]) -> Factors | None:
        """Both factors of a layer, `[r, D]` and `[F, r]`; the second includes the scale."""
        for layer in layers:
            paths = [f"{PREFIX}{layer}.{name}" for name in names]
            present = [path for path in paths if path in self.arrays]
            if present:
                fail_unless(len(present) == 2, f"path: expected both factors of {layer}, got only {present[0]}.")
                a, b = (self.arrays.pop(path) for path in paths)
                fail_unless(
                    a.ndim == b.ndim == 2 and len(a) > 0,
                    f"path: expected factors [r, D] and [F, r] of {layer}, got {describe_array(a)}, "
                    f"{describe_array(b)}.",
                )
                scale = np.float32(self.config.scale(layer, a.shape[0]))
                return a, b.astype(np.result_type(b.dtype, np.float32)) * scale
        return None

    def pop_magnitude(self, layers: Sequence[str]) -> np.ndarray:
        """The magnitudes of an adapted layer (DoRA)."""
        paths = [f"{PREFIX}{layer}.lora_magnitude_vector" for layer in layers]
        path = next((path for path in paths if path in self.arrays), None)
        fail_unless(path is not None, f"path: expected a magnitude for each layer with use_dora, got none: {paths[0]}.")
        return self.arrays.pop(path)

    def pop_whole(self, layers: Sequence[str], leaf: str) -> np.ndarray | None:
        """A weight or a bias that is saved whole."""
        inside = [f"{BASE}.bias"] if leaf == "bias" else []
        paths = [f"{PREFIX}{layer}{end}" for layer in layers for end in (f".{leaf}", *inside)]
        path = next((path for path in paths if path in self.arrays), None)
        return None if path is None else self.arrays.pop(path)

    def drop_copies(self, weight_of: Callable[[str], np.ndarray | None]) -> None:
        """Remove copies of weights of the base, which PEFT saves of adapted heads and tables. One that differs from
        `weight_of(layer)` stays, and is then reported as unused: the adapters belong to another model.
        """
        for name in [name for name in self.arrays if name.endswith(f"{BASE}.weight")]:
            weight = weight_of(_layer_of(name))
            if weight is not None and np.array_equal(weight, self.arrays[name]):
                del self.arrays[name]

    def drop_wrapped_biases(self) -> None:
        """Remove what `bias="all"` saves of a module that is saved whole: its bias once more, under the name of PEFT's
        wrapper, and the bias before the training, which nothing computes with.
        """
        for name in list(self.arrays):
            saved = name.replace(".modules_to_save.", ".")
            if name.endswith(".original_module.bias") or (saved != name and self._are_equal(name, saved)):
                del self.arrays[name]

    def drop_tied_biases(self, copies: Mapping[str, str]) -> None:
        """Remove biases that the file has twice, as the model has them under two names: copy -> original."""
        for name, original in copies.items():
            if name.endswith(".bias") and self._are_equal(PREFIX + name, PREFIX + original):
                del self.arrays[PREFIX + name]

    def drop_tied_head(self, family: Family, config: Config) -> None:
        """Remove the adapter of a tied head that is the same as that of the embedding. If it is not, or only one of the
        two has an adapter, PEFT changes one and not the other, which a tied head cannot. Its bias stays.
        """
        mappings = untied_mappings(family, config)
        head, table = (
            layer_and_leaf(family, mapping_of(mappings, name).torch_names[0])[0] for name in (HEAD, "embedding")
        )
        both = self._of_layer(head), self._of_layer(table)
        if not any(both):
            return
        fail_unless(
            _are_tied(*both),
            "path: expected adapters that change the embedding and the head alike, as the head is tied, got "
            f"{list_names(both[1]) or 'none'} of {table[0]} and {list_names(both[0]) or 'none'} of {head[0]}. Untie it "
            "first: models.untie_head(model).",
        )
        for name in [name for name in self.arrays if _layer_of(name) in head and not name.endswith(".bias")]:
            del self.arrays[name]

    def _are_equal(self, name: str, other: str) -> bool:
        """Whether the file has both arrays, and they are equal."""
        return {name, other} <= self.arrays.keys() and np.array_equal(self.arrays[name], self.arrays[other])

    def _of_layer(self, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays of a layer but its bias, by the rest of their names."""
        found = ((name, _layer_of(name)) for name in self.arrays if not name.endswith(".bias"))
        return {name.removeprefix(f"{PREFIX}{layer}."): self.arrays[name] for name, layer in found if layer in layers}


def _layer_of(name: str) -> str:
    """The layer that an array belongs to."""
    name = name.removeprefix(PREFIX).split(".lora_")[0]
    return name.removesuffix(".weight").removesuffix(".bias").removesuffix(BASE)


def _are_tied(head: Mapping[str, np.ndarray], table: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays of a head and of a table change `[V, D]` alike."""
    pairs = {"weight": "weight", "lora_A.weight": "lora_embedding_B", "lora_B.weight": "lora_embedding_A"}
    changes, expected = ({name for name in x if name != "base_layer.weight"} for x in (head, table))
    if not changes or changes - pairs.keys() or {pairs[name] for name in changes} != expected:
        return False
    return all(np.array_equal(head[x] if x == "weight" else head[x].T, table[pairs[x]]) for x in changes)
