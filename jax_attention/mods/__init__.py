"""Mods: functions of a single score and the positions of its query and key, applied in order.

A plain function `(scores, q_pos, k_pos) -> scores` is accepted wherever a mod is.
"""

from jax_attention.mods.base import Mod, UserMod, as_mod
from jax_attention.mods.bias import Alibi, Bias, Relative, alibi, bias, relative
from jax_attention.mods.shape import SoftCap, Temperature, soft_cap, temperature

CATALOGUE = (bias, alibi, relative, soft_cap, temperature)

__all__ = [
    "CATALOGUE",
    "Alibi",
    "Bias",
    "Mod",
    "UserMod",
    "Relative",
    "SoftCap",
    "Temperature",
    "alibi",
    "as_mod",
    "bias",
    "relative",
    "soft_cap",
    "temperature",
]
