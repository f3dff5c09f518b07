"""Means with bootstrap confidence intervals, over seeds or over sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.short_repr import short_repr

if TYPE_CHECKING:
    from jaxtyping import Array, Float

COUNTS_AT_ONCE = 2**22
"""Number of counts that are in memory at once (32 MiB in float64)."""


@short_repr
class ConfidenceInterval(NamedTuple):
    """A mean and the ends of its confidence interval: float64 arrays `[...]`, one entry for each point of a curve."""

    mean: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


def bootstrap(
    values: Float[Array, "N ..."], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> ConfidenceInterval:
    """Mean over the first axis, with its percentile bootstrap interval.

        m_b = 1/N sum_i values[I_bi],    I_bi uniform over 1 … N,    b = 1 … resamples
        low, high = quantiles (1 - level) / 2 and (1 + level) / 2 of the m_b

    Rows are drawn whole: a curve `[N, T]` of N seeds gets an interval at each of its T points, from the same draws. For
    few rows the interval is too narrow, by sqrt((N - 1) / N) and because it does not correct as Student's t does: of
    five seeds show each one too.

    Args:
        values: `[N, ...]`, N at least 2: one number or one curve per seed or per sentence.
        level: the share of intervals that should contain the true mean, between 0 and 1.
        resamples: how many means are drawn.
        seed: at least 0; equal seeds give equal intervals.

    Returns:
        `ConfidenceInterval(mean, low, high)`, arrays `[...]`.

    Raises:
        ValueError: if there are fewer than 2 values, one is not finite, or an argument is out of range.
        TypeError: if `resamples` or `seed` is not an int.

    Example:
        >>> from jax_attention import training
        >>> interval = training.bootstrap([71.0, 74.0, 69.0, 73.0, 70.0])
        >>> [round(float(end), 1) for end in interval]
        [71.4, 69.8, 73.0]

    Reference:
        Efron, Tibshirani (1993), "An introduction to the bootstrap", section 13.3.
    """
    values = np.asarray(values, np.float64)
    fail_unless(
        values.ndim >= 1 and len(values) >= 2,
        f"values: expected at least 2 along the first axis, got {describe_array(values)}. One value has no interval.",
    )
    fail_unless(bool(np.all(np.isfinite(values))), "values: expected finite numbers, got inf or NaN. Look at that run.")
    fail_unless(
        not isinstance(level, bool) and isinstance(level, (int, float)) and 0 < level < 1,
        f"level: expected a number between 0 and 1, got {level!r}. 0.95 is usual.",
    )
    check_int("resamples", resamples, 1, "It is the number of means that are drawn.")
    check_int("seed", seed, 0, "Seeds count from 0.")
    rows, rng = values.reshape(len(values), -1), np.random.default_rng(seed)
    at_once = max(1, COUNTS_AT_ONCE // len(rows))
    # A mean of drawn rows is a product with their counts, which needs no copy of the rows for each draw.
    sizes = [min(at_once, resamples - done) for done in range(0, resamples, at_once)]
    means = np.concatenate([_draw_counts(rng, size, len(rows)) @ rows for size in sizes]) / len(rows)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).reshape(2, *values.shape[1:])
    return ConfidenceInterval(values.mean(axis=0), low, high)


def _draw_counts(rng: np.random.Generator, draws: int, count: int) -> Float[np.ndarray, "draws count"]:
    """How often each of `count` rows is among `count` draws with replacement, `draws` times."""
    # One bincount for all draws: those of draw b are shifted by b * count.
    indices = rng.integers(count, size=(draws, count)) + count * np.arange(draws)[:, None]
    return np.bincount(indices.reshape(-1), minlength=draws * count).reshape(draws, count).astype(np.float64)
