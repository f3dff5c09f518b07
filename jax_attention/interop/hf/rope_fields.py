"""Rotary embeddings in Hugging Face configs: old fields (`rope_theta`, `rope_scaling`) and new (`rope_parameters`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jax_attention.core.text import list_names, quote
from jax_attention.interop.hf.config_fields import ConfigFields
from jax_attention.positions import (
    Rotary,
    Scaling,
    dynamic_scaling,
    linear_scaling,
    llama3_scaling,
    rotary,
    yarn_scaling,
)
from jax_attention.positions.scaling import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling

BASE, FRACTION = "rope_theta", "partial_rotary_factor"
ORIGINAL = "original_max_position_embeddings"


def read_rope(
    fields: ConfigFields, head_size: int, context: int, *, base: float = 10000.0, fraction: float | None = None
) -> Rotary:
    """The rotary embedding of a config that has one. `fraction` is the default for the rotated part of each head; None
    for families that rotate whole heads and ignore the field.
    """
    new, old = fields.take("rope_parameters", None), fields.take("rope_scaling", None)
    top_level = {BASE: fields.take(BASE, base), FRACTION: fields.take(FRACTION, fraction)}
    parameters = {**top_level, **(old or {}), **(new or {})}
    return rope_from_parameters(parameters, head_size, context, partial=fraction is not None)


def rope_from_parameters(
    parameters: Mapping[str, Any], head_size: int, context: int, *, partial: bool = False
) -> Rotary:
    """The rotary embedding of one `rope_parameters` dictionary; an entry that is not understood is an error."""
    fields = ConfigFields({name: x for name, x in parameters.items() if x is not None})
    if not partial:
        fields.expect(FRACTION, 1.0)
    base, size = float(fields.take(BASE)), int(head_size * fields.take(FRACTION, 1.0))
    scaling = _scaling(fields.take_first(("rope_type", "type"), "default"), fields, context)
    if fields.unread():
        names = list_names(fields.unread())
        raise ValueError(f"config.json: expected rope_parameters that this library has, got also {names}.")
    return rotary(base=base, size=None if size == head_size else size, scaling=scaling)


def _scaling(rope_type: str, fields: ConfigFields, context: int) -> Scaling | None:
    if rope_type == "default":
        return None
    if rope_type == "linear":
        return linear_scaling(fields.take("factor"))
    if rope_type == "dynamic":
        fields.ignore(ORIGINAL)  # transformers ignores it: its dynamic scaling starts at max_position_embeddings
        return dynamic_scaling(fields.take("factor"), context)
    if rope_type == "llama3":
        low, high = fields.take("low_freq_factor"), fields.take("high_freq_factor")
        return llama3_scaling(fields.take("factor"), low, high, fields.take(ORIGINAL, context))
    if rope_type == "yarn":
        return yarn_scaling(
            fields.take("factor"),
            fields.take(ORIGINAL, context),
            beta_fast=fields.take("beta_fast", 32.0),
            beta_slow=fields.take("beta_slow", 1.0),
            attention_factor=fields.take("attention_factor", None),
            truncate=fields.take("truncate", True),
        )
    known = "default, linear, dynamic, llama3, yarn"
    raise ValueError(f"config.json: expected a rope_type among {known}, got {quote(rope_type)}.")


def rope_json(rope: Rotary, head_size: int) -> dict[str, Any]:
    """`rope_parameters` of a rotary embedding; `read_rope` is the inverse."""
    fraction = {} if rope.size is None else {FRACTION: _fraction(rope.size, head_size)}
    return {BASE: rope.base, **fraction, **_scaling_json(rope.scaling)}


def _fraction(size: int, head_size: int) -> float:
    """`size / head_size`, rounded up where transformers' `int(head_size * fraction)` would give one less: 30 / 44."""
    fraction = size / head_size
    return fraction if int(head_size * fraction) == size else math.nextafter(fraction, 2.0)


def _scaling_json(scaling: Scaling) -> dict[str, Any]:
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, DynamicScaling):
        return {"rope_type": "dynamic", "factor": scaling.factor}
    if isinstance(scaling, Llama3Scaling):
        bounds = {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
        return {"rope_type": "llama3", "factor": scaling.factor, **bounds, ORIGINAL: scaling.original_length}
    if isinstance(scaling, YarnScaling):
        extra = {} if scaling.attention is None else {"attention_factor": scaling.attention}
        ramp = {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
        return {"rope_type": "yarn", "factor": scaling.factor, ORIGINAL: scaling.original_length, **ramp, **extra}
    return {"rope_type": "default"}
