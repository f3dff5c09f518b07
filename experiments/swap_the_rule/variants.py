"""Variants by name, and the fields of the base config that each replaces."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from jax_attention import models, normalizers, scores

BASE = "base"
GROUPS = {
    BASE: (BASE,),
    "score": ("dot, unscaled", "cosine, scale 8", "l2", "additive"),
    "queries and keys": ("normed",),
    "normalizer": ("sinks", "sigmoid", "relu", "entmax15", "sparsemax", "uniform"),
    "position": ("alibi", "t5", "learned", "sinusoidal", "none"),
    "window": ("window 16", "window 16, then all", "window 1"),
}
"""Names of the variants by the part that they change.

The base is causal, with the scaled dot product, softmax and rotary positions.
"""
NAMES = tuple(name for names in GROUPS.values() for name in names)
POSITIONS = GROUPS["position"]


def group_of(name: str) -> str:
    """Group of a variant: the part that it changes."""
    return next(group for group, names in GROUPS.items() if name in names)


def replaced_fields(name: str, base: models.LMConfig) -> dict[str, Any]:
    """Fields of the base config that a variant replaces: one field, or none for the base itself.

    The scale of l2, `1 / (2 sqrt(H))`, makes it the scaled dot product minus half the squared lengths of q and k over
    sqrt(H). The additive score is sum tanh(q + k); its usual weights are the model's projections of queries and keys.
    The bias of the sigmoid, -log T, makes its weights sum to about 1 over T keys at scores of 0.
    """
    if name in POSITIONS:
        return {"position": name}
    size = base.resolved_head_size
    fields: dict[str, dict[str, Any]] = {
        BASE: {},
        "dot, unscaled": {"score": scores.dot()},
        "cosine, scale 8": {"score": scores.cosine(8.0)},
        "l2": {"score": scores.l2(0.5 / math.sqrt(size))},
        "additive": {"score": scores.additive(jnp.eye(size), jnp.eye(size))},
        "normed": {"qk_norm": True},
        "sinks": {"sinks": True},
        "sigmoid": {"normalize": normalizers.sigmoid(-math.log(base.context))},
        "relu": {"normalize": normalizers.relu()},
        "entmax15": {"normalize": normalizers.entmax15()},
        "sparsemax": {"normalize": normalizers.sparsemax()},
        "uniform": {"normalize": normalizers.uniform()},
        "window 16": {"windows": (16,)},
        "window 16, then all": {"windows": (16, None)},
        "window 1": {"windows": (1,)},
    }
    return fields[name]
