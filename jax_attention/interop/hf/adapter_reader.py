"""Adapters from the arrays of a file: factors, magnitudes and replaced arrays, one mapping of the family at a time."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.numerics import compute_dtype
from jax_attention.interop.hf.adapter_base import BaseModel
from jax_attention.interop.hf.adapter_file import (
    KERNEL,
    LINEAR_FACTORS,
    TABLE_FACTORS,
    TABLES,
    AdapterFile,
    layer_and_leaf,
)
from jax_attention.interop.hf.family import Family
from jax_attention.interop.hf.lora_factors import to_jax_factors, to_jax_magnitudes
from jax_attention.interop.weight_mapping import WeightMapping
from jax_attention.nn import Adapters


def read_factors(
    mapping: WeightMapping, family: Family, file: AdapterFile, base: BaseModel, adapters: Adapters
) -> None:
    """Take the factors of the kernels or the table of a mapping, and their magnitudes."""
    is_table = mapping.jax_names[0] in TABLES
    if not is_table and not mapping.jax_names[0].endswith(KERNEL):
        return
    layers = [layer_and_leaf(family, name)[0] for name in mapping.torch_names]
    factors = [file.pop_factors(names, TABLE_FACTORS if is_table else LINEAR_FACTORS) for names in layers]
    if all(x is None for x in factors):
        return
    magnitudes = [
        file.pop_magnitude(names) if file.config.has_magnitudes and x is not None else None
        for names, x in zip(layers, factors, strict=True)
    ]
    if is_table:
        _read_table(mapping, factors[0], magnitudes[0], base, adapters)
        return
    first, seconds = to_jax_factors(mapping, factors, [base.shapes[name].shape for name in mapping.jax_names])
    for name, second in zip(mapping.jax_names, seconds, strict=True):
        dtype, layer = compute_dtype(base.shapes[name].dtype), name.removesuffix(KERNEL)
        adapters.down[layer], adapters.up[layer] = jnp.asarray(first, dtype), jnp.asarray(second, dtype)
    if file.config.has_magnitudes:
        kernels = base.numpy(mapping.jax_names, adapters.replaced)
        for name, x in zip(mapping.jax_names, to_jax_magnitudes(mapping, magnitudes, kernels), strict=True):
            adapters.magnitude[name.removesuffix(KERNEL)] = jnp.asarray(x, compute_dtype(base.shapes[name].dtype))


def _read_table(mapping: WeightMapping, factors: Any, magnitude: Any, base: BaseModel, adapters: Adapters) -> None:
    """The factors of a table `[V, D]`, for PEFT a layer from V features to D: `A [r, V]` and `B [D, r]`."""
    (name,) = mapping.jax_names
    shape, (a, b) = base.shapes[name].shape, factors
    (first,) = mapping.to_jax([a.T])
    fail_unless(
        first.shape == (shape[0], a.shape[0]) and b.shape == (shape[1], a.shape[0]),
        f"path: expected factors [r, {shape[0]}] and [{shape[1]}, r] for {mapping.torch_names[0]}, got "
        f"{describe_array(a)}, {describe_array(b)}. They are for another model.",
    )
    dtype = compute_dtype(base.shapes[name].dtype)
    adapters.down[name], adapters.up[name] = jnp.asarray(first, dtype), jnp.asarray(b.T, dtype)
    if magnitude is not None:
        fail_unless(
            magnitude.shape == shape[1:] and len(first) == a.shape[1],
            f"path: expected a magnitude for each of {shape[1]} columns of the table {mapping.torch_names[0]}, whose "
            f"rows are all read, got {describe_array(magnitude)} for {a.shape[1]} rows.",
        )
        adapters.magnitude[name] = jnp.asarray(magnitude, dtype)


def read_replaced(
    mapping: WeightMapping, family: Family, file: AdapterFile, base: BaseModel, adapters: Adapters
) -> None:
    """Take the arrays of a mapping that the file has whole. What it lacks of them is that of the base."""
    given = [file.pop_whole(*layer_and_leaf(family, name)) for name in mapping.torch_names]
    if all(x is None for x in given):
        return
    arrays = list(mapping.to_torch(base.numpy(mapping.jax_names)))
    for i, (name, x) in enumerate(zip(mapping.torch_names, given, strict=True)):
        if x is not None:
            fail_unless(
                x.shape == arrays[i].shape,
                f"path: expected {name} of shape {arrays[i].shape}, got {describe_array(x)}. If tokens were added, "
                "the base model needs them too.",
            )
            arrays[i] = x.astype(np.result_type(x.dtype, np.float32))
    for name, x in zip(mapping.jax_names, mapping.to_jax(arrays), strict=True):
        adapters.replaced[name] = jnp.asarray(x, compute_dtype(base.shapes[name].dtype))
