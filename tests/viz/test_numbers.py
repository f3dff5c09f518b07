"""Rollout and entropy against plain loops, and against what attention itself reports."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import attend_with_stats, attention_weights, viz
from tests.support.arrays import normal
from tests.support.tolerances import FORWARD


def some_weights(seed: int, *shape: int) -> np.ndarray:
    """Distributions, a third of the entries exactly 0, some rows empty."""
    rng = np.random.default_rng(seed)
    raw = rng.exponential(size=shape) * (rng.uniform(size=shape) > 0.33)
    total = raw.sum(-1, keepdims=True)
    return np.divide(raw, total, out=np.zeros(shape), where=total > 0)


def rollout_by_loops(weights: np.ndarray) -> np.ndarray:
    layers, heads, size, _ = weights.shape
    result = [[float(i == j) for j in range(size)] for i in range(size)]
    for layer in range(layers):
        step = [
            [0.5 * sum(weights[layer, n, i, j] for n in range(heads)) / heads + 0.5 * (i == j) for j in range(size)]
            for i in range(size)
        ]
        result = [[sum(step[i][k] * result[k][j] for k in range(size)) for j in range(size)] for i in range(size)]
    return np.array(result)


@given(seed=st.integers(0, 1000), layers=st.integers(1, 4), heads=st.integers(1, 3), size=st.integers(1, 5))
def test_rollout_is_the_product_of_half_attention_half_residual(seed, layers, heads, size):
    weights = some_weights(seed, layers, heads, size, size)
    np.testing.assert_allclose(viz.rollout(weights), rollout_by_loops(weights), rtol=0, atol=FORWARD["float64"])


@given(seed=st.integers(0, 1000), layers=st.integers(1, 4))
def test_rollout_of_distributions_is_a_distribution_and_stays_causal(seed, layers):
    raw = np.random.default_rng(seed).exponential(size=(layers, 2, 5, 5)) * np.tri(5)
    shares = viz.rollout(raw / raw.sum(-1, keepdims=True))
    np.testing.assert_allclose(shares.sum(-1), 1, atol=FORWARD["float64"])
    assert (shares[np.triu_indices(5, 1)] == 0).all()
    assert (np.diag(shares) >= 0.5**layers).all()


@given(seed=st.integers(0, 1000), shape=st.tuples(*[st.integers(1, 4)] * 4))
def test_head_entropy_is_the_mean_over_rows_that_attend(seed, shape):
    weights = some_weights(seed, *shape)
    expected = np.full(shape[:2], np.nan)
    for layer, head in np.ndindex(shape[:2]):
        rows = [[w for w in row if w > 0] for row in weights[layer, head].tolist()]
        each = [-sum(w * math.log(w) for w in row) for row in rows if row]
        if each:
            expected[layer, head] = sum(each) / len(each)
    np.testing.assert_allclose(viz.head_entropy(weights), expected, rtol=0, atol=FORWARD["float64"])


def test_head_entropy_agrees_with_attend_with_stats():
    x = normal(0, 2, 3, 6, 4)
    run = jax.jit(lambda x: (attention_weights(x, x, x), attend_with_stats(x, x, x).entropy.mean(-1)))
    weights, entropy = run(x)
    np.testing.assert_allclose(viz.head_entropy(weights), entropy, atol=FORWARD["float32"])


def test_rows_rounded_to_bfloat16_are_still_distributions():
    raw = np.exp(np.random.default_rng(0).normal(size=(2, 2, 300, 300)))
    weights = jnp.asarray((raw / raw.sum(-1, keepdims=True)).astype(jnp.bfloat16))
    assert float(np.asarray(weights, np.float64).sum(-1).max()) > 1
    assert viz.head_entropy(weights).shape == (2, 2)
    assert viz.rollout(weights).shape == (300, 300)


@pytest.mark.parametrize("function", [viz.rollout, viz.head_entropy, viz.entropy_map])
def test_rows_that_exceed_one_are_refused(function):
    weights = np.full((2, 1, 2, 2), 0.4)
    weights[1, 0, 1] = 0.6
    with pytest.raises(ValueError, match=r"at most 1, got 1.2 in row \[1, 0, 1\].*weights / weights.sum"):
        function(weights)
