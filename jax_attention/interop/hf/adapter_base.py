"""The base model of adapters: its arrays by the names of unrolled blocks, and the families whose layers it has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jax_attention.core.checks import check_instance, fail_unless
from jax_attention.core.tree_paths import arrays_by_path
from jax_attention.interop.hf.adapter_file import layer_and_leaf, untied_mappings
from jax_attention.interop.hf.config import matching_families
from jax_attention.interop.hf.family import Family
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.models import EncoderDecoder, TransformerLM, unroll_layers


class BaseModel:
    """The base model with unrolled blocks: its config, the shapes of its arrays, and their numbers where needed."""

    def __init__(self, model: TransformerLM | EncoderDecoder):
        self.model, abstract = model, jax.eval_shape(unroll_layers, model)
        self.config, self.shapes = abstract.config, arrays_by_path(abstract)
        self.is_tied = isinstance(model, TransformerLM) and model.config.tied_head
        """Whether the head is the embedding. Adapters of the tables of an encoder-decoder are not read."""

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The numbers by the names of the unrolled model."""
        return arrays_by_path(unroll_layers(self.model))

    def numpy(self, names: tuple[str, ...], replaced: Mapping[str, Any] | None = None) -> list[np.ndarray]:
        """Some of the arrays in at least float32, or those that replace them."""
        arrays = [np.asarray((replaced or {}).get(name, self.arrays[name])) for name in names]
        return [x.astype(np.result_type(x.dtype, np.float32)) for x in arrays]


def check_base(model: Any) -> None:
    """Check the model that adapters are for."""
    check_instance("model", model, (TransformerLM, EncoderDecoder), "a models.TransformerLM or EncoderDecoder")
    fail_unless(
        not (model.config.scan and isinstance(model, EncoderDecoder)),
        "model: expected an encoder-decoder with single blocks, got scanned ones. Unroll it: "
        "models.unroll_layers(model).",
    )


def families_of(base: BaseModel, model_type: str | None) -> list[Family]:
    """All families that have the model, or the named one."""
    return [family for family, _ in matching_families(base.config, model_type)]


def family_with_layers(base: BaseModel, model_type: str | None, layers: set[str]) -> Family:
    """The first family that has all these layers, or else the first: loading then reports what is unused."""
    families = families_of(base, model_type)
    for family in families:
        mappings = untied_mappings(family, base.config) if base.is_tied else family.weight_mappings(base.config)
        weights = (weight for mapping in mappings for weight in mapping.torch_names)
        if layers <= {layer for weight in weights for layer in layer_and_leaf(family, weight)[0]}:
            return family
    return families[0]


def weight_of(layer: str, family: Family, mappings: list[WeightMapping], base: BaseModel) -> np.ndarray | None:
    """The weight of a layer in Hugging Face, or None where it is not one of the base."""
    for mapping in mappings:
        layers, leaf = layer_and_leaf(family, mapping.torch_names[0])
        if layer in layers and leaf == "weight":
            return mapping.to_torch([np.asarray(base.arrays[name]) for name in mapping.jax_names])[0]
    return None
