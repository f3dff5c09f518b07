"""How much of a difference is rounding: the tolerance of every point, derived from the dtype, sums, and depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jax_attention.interop.parity.difference import Difference, difference
from jax_attention.models import LMConfig

ROUNDINGS = 8
"""So many results of a part may be rounded one after the other, all the same way.
Of what this and the sums allow, sound models of every family used at most 0.36, in float32 and bfloat16; decoders of
widths up to 1024 and depths up to 24 as well. Random encoders of width 512 and 8 layers used up to 0.72.
"""


@dataclass(frozen=True)
class ParityRow:
    """One comparison: where, how far apart, and how far rounding may bring two right sides."""

    layer: int | None
    point: str
    difference: Difference
    allowed: float
    half: str = ""
    """Of a pair: encoder or decoder."""

    @property
    def used(self) -> float:
        """The part of the allowed distance that is used; NaN where there is a NaN."""
        apart = self.difference.max_abs
        return apart / self.allowed if self.allowed else (math.inf if apart else 0.0)

    @property
    def equal(self) -> bool:
        """Whether rounding explains it."""
        return bool(self.used <= 1)

    @property
    def place(self) -> str:
        """The half and the layer, as far as there are some."""
        return " ".join([self.half] * bool(self.half) + ([] if self.layer is None else [str(self.layer)]))


@dataclass(frozen=True)
class Scale:
    """What tolerances depend on besides the numbers themselves."""

    eps: float
    length: int

    def relative(self, n: int, layers: int = 1) -> float:
        """What rounding may make of one number: a few results in the dtype, and errors of a sum of n terms, which is
        made in float32 at least. Both add up as a random walk over layers.

            sqrt(layers) (8 eps + sqrt(n) min(eps, 2^-23)) / 2
        """
        return layers**0.5 * (ROUNDINGS * self.eps + n**0.5 * min(self.eps, float(jnp.finfo(jnp.float32).eps))) / 2

    @property
    def step(self) -> float:
        """By this part inputs are changed to see how much the result depends on their last digits."""
        return self.eps**0.5


def longest_sum(kind: str, config: LMConfig, length: int) -> int:
    """Terms of the longest sum at a point. In a norm they are squares, whose errors are small beside their sum."""
    heads, width, size = config.num_heads * config.resolved_head_size, config.width, config.resolved_ff_size
    sums = {
        "embedding": (1,),
        "norm": (1,),
        "attention": (width, heads, length),
        "cross-attention": (width, heads, length),
        "feed-forward": (width, size),
        "block": (width, heads, length, size),
        "head": (width,),
    }
    return max(sums[kind])


def nudged(x: np.ndarray, step: float) -> np.ndarray:
    """Every number larger or smaller by a part of it, always the same way; what are no numbers stays."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    signs = np.random.default_rng(0).choice([-1, 1], size=x.shape)
    return (x.astype(np.float64) * (1 + step * signs)).astype(x.dtype)


def compared(
    found: np.ndarray, moved: np.ndarray, expected: np.ndarray, rows: np.ndarray, scale: Scale, relative: float
) -> tuple[Difference, float]:
    """The difference in these rows, and what is allowed: this part of the largest number that is expected, and of the
    change of the result if every input changed by its own size.
    """
    found, moved, expected = (x[rows] for x in (found, moved, expected))
    with np.errstate(invalid="ignore"):  # inf - inf
        change = float(np.abs(moved.astype(np.float64) - found.astype(np.float64)).max(initial=0.0)) / scale.step
    size = float(np.abs(expected.astype(np.float64)).max(initial=0.0)) + change
    return difference(found, expected), relative * size
