"""Rotary embeddings as Hugging Face writes them, old (`rope_theta`, `rope_scaling`) and new (`rope_parameters`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jax_attention.interop.hf.config_fields import Fields
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

BASE, PART = "rope_theta", "partial_rotary_factor"
ORIGINAL = "original_max_position_embeddings"


def read_rope(
    fields: Fields, head_size: int, context: int, *, base: float = 10000.0, part: float | None = None
) -> Rotary:
    """The one rotary embedding of a config. `part` is the usual part of a head that is turned; None where the family
    turns the whole head and ignores the field.
    """
    new, old = fields.take("rope_parameters", None), fields.take("rope_scaling", None)
    outer = {BASE: fields.take(BASE, base), PART: fields.take(PART, part)}
    return one_rope({**outer, **(old or {}), **(new or {})}, head_size, context, partial=part is not None)


def one_rope(parameters: Mapping[str, Any], head_size: int, context: int, *, partial: bool = False) -> Rotary:
    """From one dictionary of `rope_parameters`; whatever is in it must be understood."""
    given = Fields({name: x for name, x in parameters.items() if x is not None})
    if not partial:
        given.expect(PART, 1.0)
    base, size = float(given.take(BASE)), int(head_size * given.take(PART, 1.0))
    scaling = _scaling(str(given.first(("rope_type", "type"), "default")), given, context)
    if given.unread():
        names = ", ".join(given.unread())
        raise ValueError(f"config.json: expected rope_parameters that this library has, got also {names}.")
    return rotary(base=base, size=None if size == head_size else size, scaling=scaling)


def _scaling(kind: str, given: Fields, context: int) -> Scaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return linear_scaling(given.take("factor"))
    if kind == "dynamic":
        given.take(ORIGINAL, None)  # transformers goes by the context alone
        return dynamic_scaling(given.take("factor"), context)
    if kind == "llama3":
        low, high = given.take("low_freq_factor"), given.take("high_freq_factor")
        return llama3_scaling(given.take("factor"), low, high, given.take(ORIGINAL, context))
    if kind == "yarn":
        return yarn_scaling(
            given.take("factor"),
            given.take(ORIGINAL, context),
            beta_fast=given.take("beta_fast", 32.0),
            beta_slow=given.take("beta_slow", 1.0),
            attention_factor=given.take("attention_factor", None),
            truncate=given.take("truncate", True),
        )
    known = "default, linear, dynamic, llama3, yarn"
    raise ValueError(f"config.json: expected a rope_type among {known}, got {kind!r}.")


def rope_json(rope: Rotary, head_size: int) -> dict[str, Any]:
    """`rope_parameters` of a rotary embedding; `read_rope` is the inverse."""
    part = {} if rope.size is None else {PART: _part(rope.size, head_size)}
    return {BASE: rope.base, **part, **_scaling_json(rope.scaling)}


def _part(size: int, head_size: int) -> float:
    """The quotient, rounded so that their `int(head_size * part)` is the size and not one less."""
    part = size / head_size
    return part if int(head_size * part) == size else math.nextafter(part, 2.0)


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
