"""Positions: encodings to add (`sinusoidal`, `learned`) or to rotate by (`rotary`), and arrays for mods."""

from jax_attention.positions.rotary import Rotary, rotary, rotary_tables
from jax_attention.positions.scaling import (
    Scaling,
    dynamic_scaling,
    linear_scaling,
    llama3_scaling,
    yarn_scaling,
)
from jax_attention.positions.tables import alibi_slopes, learned, sinusoidal, t5_buckets

CATALOGUE = (sinusoidal, rotary, learned, t5_buckets, alibi_slopes)

__all__ = [
    "CATALOGUE",
    "Rotary",
    "Scaling",
    "alibi_slopes",
    "dynamic_scaling",
    "learned",
    "linear_scaling",
    "llama3_scaling",
    "rotary",
    "rotary_tables",
    "sinusoidal",
    "t5_buckets",
    "yarn_scaling",
]
