"""Confidence intervals: how often they contain the true mean, Student's own example, and wrong calls.

Report: the "95 %" intervals of `training.bootstrap`, the percentile bootstrap that was here before, contained the true
mean of 2, 3, 5 and 10 normal numbers in 50, 75, 84 and 90 % of all cases. The tables of the experiments had 3 seeds.
"""

from __future__ import annotations

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import training
from tests.support.tolerances import FORWARD

EXACT = {"rel": FORWARD["float64"], "abs": FORWARD["float64"]}
COUNT = 20_000
"""Simulated experiments. Their share has a standard deviation of 0.0015 around 0.95."""
BOOTSTRAP = {2: 0.5, 3: 0.75, 5: 0.84, 10: 0.9}
"""Coverage of the percentile bootstrap, by the number of seeds. Of 2 or 3 it is the smallest and the largest value."""


def coverage(intervals: training.ConfidenceInterval, true_mean: float) -> float:
    return np.mean((intervals.low <= true_mean) & (true_mean <= intervals.high))


def percentile_bootstrap(values: np.ndarray) -> training.ConfidenceInterval:
    """Quantiles of the means of 1000 resamples."""
    rows = np.random.default_rng(1).integers(len(values), size=(1000, len(values)))
    low, high = np.quantile(values[rows].mean(axis=1), [0.025, 0.975], axis=0)
    return training.ConfidenceInterval(values.mean(axis=0), low, high)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("n", BOOTSTRAP)
def test_an_interval_contains_the_true_mean_as_often_as_its_level(n, level):
    values = np.random.default_rng(n).normal(3.0, 0.2, size=(n, COUNT))
    sigma = math.sqrt(level * (1 - level) / COUNT)
    assert coverage(training.t_interval(values, level=level), 3.0) == pytest.approx(level, abs=4 * sigma)


@pytest.mark.parametrize("n", BOOTSTRAP)
def test_the_bootstrap_of_the_report_would_fail_the_test_above(n):
    values = np.random.default_rng(n).normal(size=(n, 1000))
    sigma = math.sqrt(BOOTSTRAP[n] * (1 - BOOTSTRAP[n]) / 1000)
    assert coverage(percentile_bootstrap(values), 0.0) == pytest.approx(BOOTSTRAP[n], abs=3 * sigma)


def test_pairs_are_compared_by_their_differences():
    """Seeds differ by 1, variants by 0.1 with noise of 0.05: only the pairs show it."""
    rng = np.random.default_rng(0)
    seeds, noise = rng.normal(size=(3, COUNT)), 0.05 * rng.normal(size=(2, 3, COUNT))
    variant, base = seeds + 0.1 + noise[0], seeds + noise[1]
    differences = training.paired_difference(variant, base)
    assert coverage(differences, 0.1) == pytest.approx(0.95, abs=0.006)
    for end, expected in zip(differences, training.t_interval(variant - base), strict=True):
        np.testing.assert_array_equal(end, expected)
    alone = training.t_interval(variant)
    assert np.median(alone.high - alone.low) > 10 * np.median(differences.high - differences.low)


def test_quantiles_of_students_table():
    """The values ±1 have s = sqrt(n / (n - 1)) for even n; tables print t(1) = 12.706, t(3) = 3.182, t(9) = 2.262."""
    for n, quantile in ((2, 12.706), (4, 3.182), (10, 2.262)):
        mean, low, high = training.t_interval([1.0, -1.0] * (n // 2))
        assert (mean, low) == (0, -high)
        assert high * math.sqrt(n - 1) == pytest.approx(quantile, abs=5e-4)
    # Student's t with 1 degree of freedom is the Cauchy distribution, whose quantiles are tangents.
    for level in (0.1, 0.5, 0.95):
        assert training.t_interval([1.0, -1.0], level=level).high == pytest.approx(
            math.tan(math.pi * level / 2), **EXACT
        )


def test_a_curve_has_the_interval_of_each_of_its_points():
    curves = np.random.default_rng(1).normal(size=(5, 3, 2))
    intervals = training.t_interval(curves)
    assert intervals.mean.shape == intervals.low.shape == intervals.high.shape == (3, 2)
    for point in np.ndindex(3, 2):
        alone = training.t_interval(curves[:, *point])
        np.testing.assert_allclose([x[point] for x in intervals], alone, rtol=0, atol=FORWARD["float64"])


def test_values_are_taken_in_float64():
    values = [1.0, 1.0, 0.0, 1.0]
    expected = training.t_interval(values)
    assert expected.high.dtype == np.float64
    for others in (np.array(values, bool), jnp.array(values, jnp.bfloat16), np.array(values, np.float16)):
        assert training.t_interval(others) == expected
    assert training.t_interval([0.25] * 3) == (0.25, 0.25, 0.25)


WRONG = {
    "one value": (
        lambda: training.t_interval([1.0]),
        "values: expected at least 2 along the first axis, got float64[1]. One value has no interval.",
    ),
    "a number": (lambda: training.t_interval(1.0), "values: expected at least 2 along the first axis, got float64[]."),
    "no number": (lambda: training.t_interval([1.0, math.inf]), "values: expected finite numbers, got inf or NaN."),
    "percent": (lambda: training.t_interval([1, 2], level=95), "level: expected a number between 0 and 1, got 95."),
    "a bool": (lambda: training.t_interval([1, 2], level=True), "level: expected a number between 0 and 1, got True."),
    "one pair": (
        lambda: training.paired_difference([1.0], [2.0]),
        "values: expected at least 2 along the first axis, got float64[1]. One value has no interval.",
    ),
    "a seed more": (
        lambda: training.paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]),
        "baseline: expected the shape of values, (2,), got float64[3]. A pair is one seed of both.",
    ),
    "no number in the baseline": (
        lambda: training.paired_difference([1.0, 2.0], [1.0, math.nan]),
        "baseline: expected finite numbers, got inf or NaN. Look at that run.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
