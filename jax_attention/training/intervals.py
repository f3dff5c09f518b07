"""Confidence intervals of a mean over a few seeds, and of the difference between two variants seed by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.short_repr import short_repr

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@short_repr
class ConfidenceInterval(NamedTuple):
    """A mean and the ends of its confidence interval: float64 arrays `[...]`, one entry for each point of a curve."""

    mean: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def t_interval(values: Float[Array, "n ..."], *, level: float = 0.95) -> ConfidenceInterval:
    """Mean over the first axis, with Student's t-interval.

        m = 1/n sum_i x_i,    s^2 = 1/(n - 1) sum_i (x_i - m)^2
        low, high = m -+ t s / sqrt(n),    t: quantile (1 + level) / 2 of Student's t with n - 1 degrees of freedom

    It contains the true mean of normal values as often as `level` says, for every n from 2 on. A few values say little
    about their spread, so t is large: 12.7 for n = 2, 4.3 for 3, 2.8 for 5, 2.3 for 10, and 1.96 for many. For many
    values of any distribution it is right too, such as whether each of 1000 sentences is translated correctly.

    The values must be independent, and the interval is about what differs between them. Over seeds with one test set
    it does not say what another test set would give. Equal values have an interval of length 0, and near the end of a
    range it can reach beyond: shares of 0.88, 0.60 and 0.92 are not normal. Show such values too.

    Args:
        values: `[n, ...]`, n at least 2: one number or one curve per seed. A curve gets an interval at each point.
        level: the share of intervals that contain the true mean, between 0 and 1.

    Returns:
        `ConfidenceInterval(mean, low, high)`, arrays `[...]`.

    Raises:
        ValueError: if there are fewer than 2 values, one is not finite, or `level` is out of range.

    Example:
        >>> from jax_attention import training
        >>> [round(float(x), 2) for x in training.t_interval([2.24, 2.21, 2.27])]
        [2.24, 2.17, 2.31]

    Reference:
        Student (1908), "The probable error of a mean", Biometrika 6.
    """
    values = _finite("values", values)
    count = len(values)
    fail_unless(
        not isinstance(level, bool) and isinstance(level, (int, float)) and 0 < level < 1,
        f"level: expected a number between 0 and 1, got {level!r}. 0.95 is usual.",
    )
    # Inside the function: the import takes 0.3 s, and nothing else of the library needs SciPy.
    from scipy.special import stdtrit

    mean = values.mean(axis=0)
    half = -stdtrit(count - 1, (1 - level) / 2) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return ConfidenceInterval(mean, mean - half, mean + half)


def paired_difference(
    values: Float[Array, "n ..."], baseline: Float[Array, "n ..."], *, level: float = 0.95
) -> ConfidenceInterval:
    """Mean of `values - baseline`, with the t-interval of the differences.

        d_i = x_i - y_i,    t_interval(d)

    For two variants that were trained from the same seeds, or tested on the same sentences: x_i and y_i belong
    together, and what both share cancels. A difference is shown at this level if the interval does not contain 0; two
    intervals that overlap, one for each variant, do not answer this question. Of 20 comparisons without any true
    difference, one interval of level 0.95 excludes 0 on average.

    Args:
        values: `[n, ...]`, n at least 2: one number or one curve per seed of the one variant.
        baseline: the same shape, in the same order of seeds: the other variant.
        level: the share of intervals that contain the true difference, between 0 and 1.

    Returns:
        `ConfidenceInterval(mean, low, high)`, arrays `[...]`.

    Raises:
        ValueError: if the shapes differ, there are fewer than 2 pairs, a number is not finite, or `level` is out of
            range.

    Example:
        Additional hours of sleep of ten patients with either of two medicines, the example of Student's paper:

        >>> from jax_attention import training
        >>> second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
        >>> first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
        >>> [round(float(x), 2) for x in training.paired_difference(second, first)]
        [1.58, 0.7, 2.46]

    Reference:
        Student (1908), "The probable error of a mean", Biometrika 6.
    """
    values, baseline = _finite("values", values), _finite("baseline", baseline)
    fail_unless(
        values.shape == baseline.shape,
        f"baseline: expected the shape of values, {values.shape}, got {describe_array(baseline)}. A pair is one seed "
        "of both.",
    )
    return t_interval(values - baseline, level=level)


def _finite(name: str, values: Float[Array, "n ..."]) -> Float[np.ndarray, "n ..."]:
    values = np.asarray(values, np.float64)
    fail_unless(
        values.ndim >= 1 and len(values) >= 2,
        f"{name}: expected at least 2 along the first axis, got {describe_array(values)}. One value has no interval.",
    )
    fail_unless(
        bool(np.all(np.isfinite(values))), f"{name}: expected finite numbers, got inf or NaN. Look at that run."
    )
    return values
