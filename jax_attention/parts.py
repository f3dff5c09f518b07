"""What parts of your own are made of: base classes, the declaration of their arrays, and numerical guards.

| for | names |
|---|---|
| every part | `struct`, `array_field`, `part_field`, `check_array` |
| a score | `Score`; `safe_norm` |
| a mod | `Mod`; `per_tile`, `take_last` |
| a mask | `Mask`; `TileRanges`, `BlockCoverage` |
| a normalizer | `Normalizer`; `row_max`, `finite_or_zero`, `forbid` |

A plain function needs none of them. The page "Adding a rule" builds a part of each kind from these names, and
`jax_attention.testing.check_rule` checks it.
"""

from jax_attention.core.checks import check_array
from jax_attention.core.numerics import finite_or_zero, forbid, per_tile, row_max, safe_norm, take_last
from jax_attention.core.struct import array_field, part_field, struct
from jax_attention.masks.base import Mask
from jax_attention.masks.block_coverage import BlockCoverage, TileRanges
from jax_attention.mods.base import Mod
from jax_attention.normalizers.base import Normalizer
from jax_attention.scores.base import Score

__all__ = [
    "BlockCoverage",
    "Mask",
    "Mod",
    "Normalizer",
    "Score",
    "TileRanges",
    "array_field",
    "check_array",
    "finite_or_zero",
    "forbid",
    "part_field",
    "per_tile",
    "row_max",
    "safe_norm",
    "struct",
    "take_last",
]
