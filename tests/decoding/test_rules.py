"""Every sampling rule against the class of Hugging Face transformers on the same logits, f32; transformers#16231."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as peer

from jax_attention import decoding
from tests.support.tiers import slow_except
from tests.support.tolerances import PARITY

CLOSE = {"rtol": PARITY, "atol": PARITY}
RNG = np.random.default_rng(0)
ONE_SHAPE = slow_except([(3, 60)], [(1, 1), (3, 60)])
EDGE = 1e-5
"""A cumulative probability this near to the border may fall on either side in float32."""


call = jax.jit(lambda rule, logits, seen=None: rule(logits, seen))


def draw(shape, ties=False):
    x = RNG.integers(-3, 3, shape) * 0.75 if ties else 3 * RNG.standard_normal(shape)
    return x.astype(np.float32)


def theirs(processor, logits, ids=None):
    return processor(None if ids is None else torch.tensor(ids), torch.tensor(logits)).numpy()


@pytest.mark.parametrize("shape", ONE_SHAPE, ids=str)
@pytest.mark.parametrize("value", [0.1, 1.0, 1.7])
def test_temperature(shape, value):
    x = draw(shape)
    np.testing.assert_allclose(
        call(decoding.temperature(value), x), theirs(peer.TemperatureLogitsWarper(value), x), **CLOSE
    )


@pytest.mark.parametrize("value", [0.5, 1.0, 1.3])
def test_repetition_penalty(value):
    """Tokens that occur twice are punished once; logits of either sign, 0 and -inf."""
    x = draw((3, 9))
    x[:, 4], x[:, 5] = 0, -np.inf
    ids = np.array([[1, 1, 4, 5], [0, 0, 0, 0], [8, 3, 8, 5]])
    seen = np.zeros(x.shape, bool)
    np.put_along_axis(seen, ids, True, axis=1)
    expected = theirs(peer.RepetitionPenaltyLogitsProcessor(value), x, ids)
    np.testing.assert_allclose(call(decoding.repetition_penalty(value), x, seen), expected, **CLOSE)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", ONE_SHAPE, ids=str)
@pytest.mark.parametrize("k", [1, 3, 10**9])
def test_top_k(shape, k, ties):
    """Ties with the k-th stay, as theirs do; k larger than V keeps everything."""
    x = draw(shape, ties)
    np.testing.assert_array_equal(call(decoding.top_k(k), x), theirs(peer.TopKLogitsWarper(k), x))


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("shape", ONE_SHAPE, ids=str)
@pytest.mark.parametrize("p", [1.0, 0.9, 0.3, 1e-6])
def test_top_p_and_min_p(shape, p, keep):
    x = draw(shape)
    for ours, other in ((decoding.top_p, peer.TopPLogitsWarper), (decoding.min_p, peer.MinPLogitsWarper)):
        expected = theirs(other(p, min_tokens_to_keep=keep), x)
        np.testing.assert_array_equal(call(ours(p, min_tokens_to_keep=keep), x), expected)


@pytest.mark.slow
@given(st.lists(st.integers(-4, 4), min_size=13, max_size=13), st.floats(0.01, 1.0), st.integers(1, 3))
def test_top_p_with_ties_keeps_as_many_of_each_value(values, p, keep):
    """Which of equal logits stay is arbitrary in PyTorch's sort; how many is not. Ours: those with larger numbers."""
    x = np.array([values], np.float32) * 0.5
    probabilities = np.sort(np.exp(x[0].astype(np.float64)) / np.exp(x[0].astype(np.float64)).sum())
    if np.abs(np.cumsum(probabilities) - (1 - p)).min() < EDGE:
        return
    ours = np.asarray(call(decoding.top_p(p, min_tokens_to_keep=keep), x))
    expected = theirs(peer.TopPLogitsWarper(p, min_tokens_to_keep=keep), x)
    np.testing.assert_array_equal(np.sort(ours), np.sort(expected))
    stable = np.argsort(x[0], kind="stable")
    dropped = int(np.isneginf(ours).sum())
    assert set(np.flatnonzero(np.isneginf(ours[0]))) == set(stable[:dropped])


@given(st.lists(st.floats(-30, 30, width=32), min_size=31, max_size=31), st.floats(0.01, 1.0))
def test_top_p_keeps_enough_and_no_more_than_it_must(values, p):
    """The oracle in float64: what stays weighs at least p; without its least likely token it would not."""
    x = np.array(values, np.float32)
    kept = np.isfinite(np.asarray(call(decoding.top_p(p), x)))
    mass = np.exp(x.astype(np.float64) - x.max())
    mass /= mass.sum()
    assert mass[kept].sum() >= p - EDGE
    assert mass[kept].sum() - mass[kept].min() <= p + EDGE
    assert mass[kept].min() >= mass[~kept].max(initial=0)


def test_top_p_of_1_drops_only_what_is_impossible_in_float32():
    x = np.array([[0.0, -200.0, -1.0, -np.inf, -200.0]], np.float32)
    np.testing.assert_array_equal(call(decoding.top_p(1.0), x), theirs(peer.TopPLogitsWarper(1.0), x))


def test_zero_and_minus_zero_are_equal_logits():
    x = np.array([0.0, -0.0, -1.0], np.float32)
    np.testing.assert_array_equal(np.isfinite(call(decoding.top_k(1), x)), [True, True, False])


RULES = {
    "temperature": (decoding.temperature, [0.5, 2.0]),
    "repetition_penalty": (decoding.repetition_penalty, [1.5, 0.5]),
    "top_k": (decoding.top_k, [2, 5]),
    "top_p": (decoding.top_p, [0.3, 0.8]),
    "min_p": (decoding.min_p, [0.5, 0.1]),
}


@pytest.mark.parametrize("name", RULES)
def test_another_number_is_the_same_program_and_rows_may_differ(name):
    """Numbers are traced leaves; an array gives each row its own. Extra leading axes change nothing."""
    make, numbers = RULES[name]
    x, seen = draw((2, 9)), RNG.integers(0, 2, (2, 9)).astype(bool)
    traces = []

    @jax.jit
    def counted(rule, x, seen):
        traces.append(rule)
        return rule(x, seen)

    rows = np.stack([np.asarray(counted(make(number), x, seen))[i] for i, number in enumerate(numbers)])
    assert len(traces) == 1
    np.testing.assert_allclose(rows, [call(make(n), x[i], seen[i]) for i, n in enumerate(numbers)], **CLOSE)
    np.testing.assert_allclose(counted(make(jnp.array(numbers)), x, seen), rows, **CLOSE)
    np.testing.assert_allclose(np.asarray(call(make(numbers[0]), x[None], seen[None]))[0, 0], rows[0], **CLOSE)


@pytest.mark.parametrize("name", RULES)
def test_rules_compare_by_content_and_print_as_calls(name):
    make, (first, second) = RULES[name]
    assert make(first) == make(first) != make(second)
    assert repr(make(first)).startswith(f"{name}(")
    with pytest.raises(AttributeError):
        make(first).k = 3


WRONG = {
    "temperature 0": (lambda: decoding.temperature(0.0), r"temperature: expected a positive number, got 0\.0.*greedy"),
    "temperature below 0": (lambda: decoding.temperature(-1), r"got -1\.0"),
    "temperature NaN": (lambda: decoding.temperature(float("nan")), r"got nan"),
    "penalty 0": (lambda: decoding.repetition_penalty(0.0), r"penalty: expected a positive number"),
    "k 0": (lambda: decoding.top_k(0), r"k: expected an int >= 1, got 0\. Leave top_k out"),
    "p 0": (lambda: decoding.top_p(0.0), r"p: expected a probability, 0 < p <= 1, got 0\.0\. Leave top_p out"),
    "p above 1": (lambda: decoding.top_p(1.1), r"p: expected a probability"),
    "min_p above 1": (lambda: decoding.min_p(2), r"p: expected a share of the largest probability"),
    "keep 0": (lambda: decoding.top_p(0.5, min_tokens_to_keep=0), r"min_tokens_to_keep: expected an int >= 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_out_of_range(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_of_the_wrong_type():
    with pytest.raises(TypeError, match=r"temperature: expected a real float number or array, got str 'hot'"):
        decoding.temperature("hot")
    with pytest.raises(TypeError, match=r"k: expected a Python int .* got float 2\.5"):
        decoding.top_k(2.5)
    with pytest.raises(TypeError, match=r"k: expected integers, got float32\[2\]"):
        decoding.top_k(jnp.ones(2))
    with pytest.raises(TypeError, match=r"seen: expected bool"):
        decoding.repetition_penalty(1.2)(jnp.ones(3))
