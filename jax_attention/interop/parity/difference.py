"""Distance of two arrays in four numbers, computed in float64 whatever the arrays are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array
from jax_attention.interop.torch.tensors import to_numpy

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Difference(NamedTuple):
    """The largest distances between two arrays, and the cosine between them. All four are NaN if an array has a NaN."""

    max_abs: float
    max_rel: float
    ulps: float
    cosine: float

    def __str__(self) -> str:
        if np.isnan(self.max_abs):
            return "not comparable: NaN"
        return f"abs {self.max_abs:.1e}, rel {self.max_rel:.1e}, {self.ulps:.3g} ulps, cosine {self.cosine:.9f}"


def difference(
    actual: Float[Array, "*shape"], expected: Float[Array, "*shape"], *, rounding: float = 0.0
) -> Difference:
    """The largest distances between an array and the expected one, and the cosine of the angle between them.

        max_abs = max |f - e|,        max_rel = max |f - e| / |e|,        ulps = max |f - e| / ulp(max(|f|, |e|))
        cosine  = f . e / (|f| |e|)

    Equal elements have distance 0, also infinite ones, and 0 and 0 relatively. If an element is infinite in one array
    only, or with the other sign, its distance is inf; so is any relative distance from 0. Two arrays of zeros have
    cosine 1. If either array has a NaN, all four numbers are NaN, so that no comparison with a tolerance succeeds.

    Args:
        actual: a floating-point JAX or NumPy array or PyTorch tensor. An ulp is a unit in the last place of its dtype.
        expected: an array of the same shape and any floating-point dtype.
        rounding: the largest distance that rounding explains. Where an expected number is no larger, the other one may
            have no digit in common with it: 0 on one side, the last digit of terms that cancel on the other. If their
            distance is no larger either, they count as equal in all but `max_abs`.

    Returns:
        `Difference(max_abs, max_rel, ulps, cosine)`; empty arrays are equal.

    Raises:
        TypeError: if an array is not floating-point.
        ValueError: if the shapes differ; nothing is broadcast.

    Example:
        >>> import numpy as np
        >>> from jax_attention import interop
        >>> one = np.float32([1, 2])
        >>> interop.difference(np.nextafter(one, np.float32(3)), one).ulps
        1.0
        >>> str(interop.difference(one, one))
        'abs 0.0e+00, rel 0.0e+00, 0 ulps, cosine 1.000000000'

    Reference:
        Goldberg (1991), "What every computer scientist should know about floating-point arithmetic", section 1.2.
    """
    actual, expected = _check_floating("actual", actual), _check_floating("expected", expected)
    if actual.shape != expected.shape:
        raise ValueError(
            f"actual: expected the shape of expected, {expected.shape}, got {actual.shape}. "
            "Reshape or slice one of them."
        )
    f, e = (x.astype(np.float64).reshape(-1) for x in (actual, expected))
    if np.isnan(f).any() or np.isnan(e).any():
        return Difference(np.nan, np.nan, np.nan, np.nan)
    differs = f != e
    distance, rel, ulps = np.zeros_like(f), np.zeros_like(f), np.zeros_like(f)
    distance[differs] = np.abs(f[differs] - e[differs])
    f = np.where((distance <= rounding) & (np.abs(e) <= rounding), e, f)
    differs = f != e
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rel[differs] = np.where(np.isinf(distance[differs]), np.inf, distance[differs] / np.abs(e[differs]))
        larger = np.maximum(np.abs(f), np.abs(e))[differs]
        ulps[differs] = np.where(np.isinf(distance[differs]), np.inf, distance[differs] / _ulp(larger, actual.dtype))
    largest = [float(x.max(initial=0.0)) for x in (distance, rel, ulps)]
    return Difference(*largest, _cosine(f, e) if differs.any() else 1.0)


def _check_floating(name: str, x: Any) -> np.ndarray:
    x = to_numpy(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: expected floating-point numbers, got {describe_array(x)}. Cast them first.")
    return x


def _ulp(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Distance from |x| to the next number of the dtype: 2^(exponent - mantissa bits), constant for subnormals."""
    info = jnp.finfo(dtype)
    # frexp has mantissas in [0.5, 1), IEEE formats in [1, 2): hence the - 1.
    exponent = np.frexp(np.where(np.isfinite(x), x, 1.0))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, info.minexp) - info.nmant)


def _cosine(f: np.ndarray, e: np.ndarray) -> float:
    """Cosine over the elements that are finite in both. Arrays are divided by their largest element, as the squares of
    numbers beyond 1e154 overflow; `tiny` prevents 0 / 0 for arrays of zeros.
    """
    finite = np.isfinite(f) & np.isfinite(e)
    f, e = (x[finite] / max(np.abs(x[finite]).max(initial=0.0), np.finfo(np.float64).tiny) for x in (f, e))
    lengths = float(np.linalg.norm(f) * np.linalg.norm(e))
    if lengths == 0:
        return float(not f.any() and not e.any())
    return float(np.clip(f @ e / lengths, -1.0, 1.0))
