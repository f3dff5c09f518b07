"""How much of a difference is rounding: the tolerance at every point, derived from dtype, sums and depth.

Rounding errors are modelled as a random walk: n errors of relative size eps / 2 add up to about sqrt(n) eps / 2
(Higham, section 2.8), where a worst case would allow n eps / 2 and hide real faults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jax_attention.interop.parity.difference import Difference, difference
from jax_attention.models import LMConfig

ROUNDINGS = 8
"""Results of one part, rounded to the dtype one after the other, whose errors may all have the same sign.

Measured: of what this and the sums allow, sound models of every family used at most 0.36, in float32 and bfloat16, as
did decoders of widths up to 1024 and depths up to 24. Random encoders of width 512 and 8 layers used up to 0.72.
"""


@dataclass(frozen=True)
class ParityRow:
    """One comparison: where it was made, how far apart both sides are, and how far rounding may bring them apart."""

    layer: int | None
    point: str
    difference: Difference
    allowed: float
    stack: str = ""
    """`encoder` or `decoder` of an encoder-decoder, else empty."""

    @property
    def used(self) -> float:
        """The largest difference over the allowed one; NaN where there is a NaN."""
        distance = self.difference.max_abs
        return distance / self.allowed if self.allowed else (math.inf if distance else 0.0)

    @property
    def equal(self) -> bool:
        """Whether rounding explains the difference."""
        return bool(self.used <= 1)

    @property
    def place(self) -> str:
        """Stack and layer in words, as far as the row has them: `decoder 1`, `2`, or an empty string."""
        return " ".join([self.stack] * bool(self.stack) + ([] if self.layer is None else [str(self.layer)]))


@dataclass(frozen=True)
class Tolerance:
    """Relative tolerances for computing in a dtype with this eps, with sums over at most `length` keys."""

    eps: float
    length: int

    def relative(self, n: int, layers: int = 1) -> float:
        """Relative error that rounding explains, where the longest sum has n terms.

            sqrt(layers) (8 eps + sqrt(n) min(eps, 2^-23)) / 2

        The first term is 8 results, each rounded to the dtype by eps / 2, with errors of one sign. The second is one
        sum as a random walk; it is made in float32 even where the dtype is narrower, hence the minimum. Errors of
        layers that came before are independent of each other, so they add up as sqrt(layers).
        """
        results = ROUNDINGS * self.eps
        sums = n**0.5 * min(self.eps, float(jnp.finfo(jnp.float32).eps))
        return layers**0.5 * (results + sums) / 2

    @property
    def step(self) -> float:
        """Relative change of the inputs that measures how much a result depends on their last digits.

        `sqrt(eps)` is the step of a difference quotient with the smallest error.
        """
        return self.eps**0.5


def longest_sum(kind: str, config: LMConfig, length: int) -> int:
    """Number of terms in the longest sum of a kind of point.

    Embeddings sum a few terms. Norms sum squares, which are positive: the relative error of such a sum is small.
    """
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


def perturbed(x: np.ndarray, step: float) -> np.ndarray:
    """Every number times `1 + step` or `1 - step`, at random but always the same. Integers are not changed."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    signs = np.random.default_rng(0).choice([-1, 1], size=x.shape)
    return (x.astype(np.float64) * (1 + step * signs)).astype(x.dtype)


def difference_and_allowed(
    jax_output: np.ndarray,
    moved_output: np.ndarray,
    hf_output: np.ndarray,
    rows: np.ndarray,
    tolerance: Tolerance,
    relative: float,
) -> tuple[Difference, float]:
    """The difference of two outputs in some rows, and the largest one that rounding explains.

        allowed = relative (max |hf| + sensitivity),        sensitivity = max |moved - jax| / step

    The sensitivity is the change of the result if every input changed by its own size, measured with inputs that were
    changed by `step` of it (`moved_output`). Without it, a softmax of large scores or a norm of a small difference
    would count as wrong: either magnifies rounding errors that its inputs already have, whatever the size of its
    output.
    """
    jax_output, moved_output, hf_output = (x[rows] for x in (jax_output, moved_output, hf_output))
    with np.errstate(invalid="ignore"):  # inf - inf
        moved = np.abs(moved_output.astype(np.float64) - jax_output.astype(np.float64))
    sensitivity = float(moved.max(initial=0.0)) / tolerance.step
    size = float(np.abs(hf_output.astype(np.float64)).max(initial=0.0)) + sensitivity
    return difference(jax_output, hf_output, rounding=relative * size), relative * size
