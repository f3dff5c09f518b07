"""Every logit transform against its class in Hugging Face transformers, on float32 logits; transformers#16231."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation import logits_process as hf

from jax_attention import decoding
from tests.support.tiers import slow_except
from tests.support.tolerances import PARITY

CLOSE = {"rtol": PARITY, "atol": PARITY}
RNG = np.random.default_rng(0)
ONE_SHAPE = slow_except([(3, 60)], [(1, 1), (3, 60)])
EDGE = 1e-5
"""A cumulative probability this close to the border may be on either side of it in float32."""


apply = jax.jit(lambda transform, logits, history=None: transform(logits, history))


def random_logits(shape, ties=False):
    x = RNG.integers(-3, 3, shape) * 0.75 if ties else 3 * RNG.standard_normal(shape)
    return x.astype(np.float32)


def apply_hf(processor, logits, ids=None):
    return processor(None if ids is None else torch.tensor(ids), torch.tensor(logits)).numpy()


@pytest.mark.parametrize("shape", ONE_SHAPE, ids=str)
@pytest.mark.parametrize("value", [0.1, 1.0, 1.7])
def test_temperature(shape, value):
    x = random_logits(shape)
    np.testing.assert_allclose(
        apply(decoding.temperature(value), x), apply_hf(hf.TemperatureLogitsWarper(value), x), **CLOSE
    )


@pytest.mark.parametrize("value", [0.5, 1.0, 1.3])
def test_repetition_penalty(value):
    """A token that occurs twice is penalised once; logits of either sign, 0 and -inf."""
    x = random_logits((3, 9))
    x[:, 4], x[:, 5] = 0, -np.inf
    ids = np.array([[1, 1, 4, 5], [0, 0, 0, 0], [8, 3, 8, 5]])
    seen = np.zeros(x.shape, bool)
    np.put_along_axis(seen, ids, True, axis=1)
    expected = apply_hf(hf.RepetitionPenaltyLogitsProcessor(value), x, ids)
    history = decoding.History(seen=seen)
    np.testing.assert_allclose(apply(decoding.repetition_penalty(value), x, history), expected, **CLOSE)


def history_of(rows, new=0, stop_tokens=()):
    """The history of rows of any lengths; the last `new` tokens of each are new ones."""
    tokens, lengths = np.full((len(rows), 1 + max(map(len, rows))), -1, np.int32), np.array(list(map(len, rows)))
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    stops = np.array([*stop_tokens, -1], np.int32)
    return decoding.History(tokens=tokens, lengths=lengths, step=np.int32(new), stop_tokens=stops)


ROWS = [[1, 2, 3, 1, 2], [4, 4, 4, 4], [5], [0, 1, 0, 1, 0, 1, 0], [6, 5, 6, 5, 4, 6, 5, 7, 6, 5]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 99])
def test_no_repeat_ngram_size(size):
    """transformers#22696. Rows of any lengths in a batch equal the rows alone; two batch dimensions change nothing."""
    x, history = random_logits((len(ROWS), 9)), history_of(ROWS)
    expected = [apply_hf(hf.NoRepeatNGramLogitsProcessor(size), x[i : i + 1], [ROWS[i]])[0] for i in range(len(ROWS))]
    assert size == 99 or np.isneginf(expected).any()
    transform = decoding.no_repeat_ngram_size(size)
    np.testing.assert_array_equal(apply(transform, x, history), expected)
    np.testing.assert_array_equal(apply(transform, x[None], history.map_rows(lambda a: a[None]))[0], expected)


def test_every_row_may_have_its_own_ngram_size():
    x, history, sizes = random_logits((len(ROWS), 9)), history_of(ROWS), np.array([3, 1, 2, 4, 2])
    rows = [np.asarray(apply(decoding.no_repeat_ngram_size(int(n)), x, history))[i] for i, n in enumerate(sizes)]
    np.testing.assert_array_equal(apply(decoding.no_repeat_ngram_size(jnp.asarray(sizes)), x, history), rows)


@pytest.mark.slow
@given(st.lists(st.integers(0, 3), min_size=1, max_size=24), st.integers(1, 6))
def test_any_tokens_have_the_ngrams_of_huggingface(row, size):
    x = np.zeros((1, 4), np.float32)
    expected = apply_hf(hf.NoRepeatNGramLogitsProcessor(size), x, [row])
    padded = history_of([row, [0] * 24]).map_rows(lambda a: a[:1])  # one shape for all rows
    np.testing.assert_array_equal(apply(decoding.no_repeat_ngram_size(size), x, padded), expected)


@pytest.mark.parametrize("stops", [(3,), (0, 8)])
def test_min_new_tokens(stops):
    """transformers#20814: the prompt does not count."""
    x, prompt = random_logits((2, 9)), 4
    for new in range(4):
        processor = hf.MinNewTokensLengthLogitsProcessor(prompt, 2, list(stops))
        expected = apply_hf(processor, x, np.ones((2, prompt + new), int))
        history = history_of([[1] * (prompt + new)] * 2, new, stops)
        np.testing.assert_array_equal(apply(decoding.min_new_tokens(2), x, history), expected)
        assert np.isneginf(expected).any() == (new < 2)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", ONE_SHAPE, ids=str)
@pytest.mark.parametrize("k", [1, 3, 10**9])
def test_top_k(shape, k, ties):
    """Ties with the k-th stay; k larger than V keeps everything."""
    x = random_logits(shape, ties)
    np.testing.assert_array_equal(apply(decoding.top_k(k), x), apply_hf(hf.TopKLogitsWarper(k), x))


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("shape", ONE_SHAPE, ids=str)
@pytest.mark.parametrize("p", [1.0, 0.9, 0.3, 1e-6])
def test_top_p_and_min_p(shape, p, keep):
    x = random_logits(shape)
    for factory, hf_class in ((decoding.top_p, hf.TopPLogitsWarper), (decoding.min_p, hf.MinPLogitsWarper)):
        expected = apply_hf(hf_class(p, min_tokens_to_keep=keep), x)
        np.testing.assert_array_equal(apply(factory(p, min_tokens_to_keep=keep), x), expected)


@pytest.mark.slow
@given(st.lists(st.integers(-4, 4), min_size=13, max_size=13), st.floats(0.01, 1.0), st.integers(1, 3))
def test_top_p_with_ties_keeps_as_many_of_each_value(values, p, keep):
    """PyTorch's sort fixes how many of equal logits stay, but not which. Here those with larger token numbers stay."""
    x = np.array([values], np.float32) * 0.5
    probabilities = np.sort(np.exp(x[0].astype(np.float64)) / np.exp(x[0].astype(np.float64)).sum())
    if np.abs(np.cumsum(probabilities) - (1 - p)).min() < EDGE:
        return
    kept = np.asarray(apply(decoding.top_p(p, min_tokens_to_keep=keep), x))
    expected = apply_hf(hf.TopPLogitsWarper(p, min_tokens_to_keep=keep), x)
    np.testing.assert_array_equal(np.sort(kept), np.sort(expected))
    stable = np.argsort(x[0], kind="stable")
    dropped = int(np.isneginf(kept).sum())
    assert set(np.flatnonzero(np.isneginf(kept[0]))) == set(stable[:dropped])


@given(st.lists(st.floats(-30, 30, width=32), min_size=31, max_size=31), st.floats(0.01, 1.0))
def test_top_p_keeps_enough_and_no_more_than_it_must(values, p):
    """In float64: the tokens that stay have mass p or more, and would have less without the least likely of them."""
    x = np.array(values, np.float32)
    kept = np.isfinite(np.asarray(apply(decoding.top_p(p), x)))
    mass = np.exp(x.astype(np.float64) - x.max())
    mass /= mass.sum()
    assert mass[kept].sum() >= p - EDGE
    assert mass[kept].sum() - mass[kept].min() <= p + EDGE
    assert mass[kept].min() >= mass[~kept].max(initial=0)


def test_top_p_of_1_drops_only_tokens_of_probability_0_in_float32():
    x = np.array([[0.0, -200.0, -1.0, -np.inf, -200.0]], np.float32)
    np.testing.assert_array_equal(apply(decoding.top_p(1.0), x), apply_hf(hf.TopPLogitsWarper(1.0), x))


def test_zero_and_minus_zero_are_equal_logits():
    x = np.array([0.0, -0.0, -1.0], np.float32)
    np.testing.assert_array_equal(np.isfinite(apply(decoding.top_k(1), x)), [True, True, False])


TRANSFORMS = {
    "temperature": (decoding.temperature, [0.5, 2.0]),
    "repetition_penalty": (decoding.repetition_penalty, [1.5, 0.5]),
    "top_k": (decoding.top_k, [2, 5]),
    "top_p": (decoding.top_p, [0.3, 0.8]),
    "min_p": (decoding.min_p, [0.5, 0.1]),
    "no_repeat_ngram_size": (decoding.no_repeat_ngram_size, [2, 1]),
    "min_new_tokens": (decoding.min_new_tokens, [3, 1]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_another_number_runs_the_same_program_and_rows_may_differ(name):
    """Numbers are traced. An array has one number per row. Further batch dimensions change nothing."""
    make, numbers = TRANSFORMS[name]
    x, history = random_logits((2, 9)), history_of([[1, 2, 1], [4, 4, 4, 0]], 2, (3, 4))
    history = dataclasses.replace(history, seen=RNG.integers(0, 2, (2, 9)).astype(bool))
    traces = []

    @jax.jit
    def counted(transform, x, history):
        traces.append(transform)
        return transform(x, history)

    rows = np.stack([np.asarray(counted(make(number), x, history))[i] for i, number in enumerate(numbers)])
    assert len(traces) == 1
    assert (rows != x).any()
    row = lambda i: history.map_rows(lambda a: a[i])  # noqa: E731
    np.testing.assert_allclose(rows, [apply(make(n), x[i], row(i)) for i, n in enumerate(numbers)], **CLOSE)
    np.testing.assert_allclose(counted(make(jnp.array(numbers)), x, history), rows, **CLOSE)
    np.testing.assert_allclose(np.asarray(apply(make(numbers[0]), x[None], row(None)))[0, 0], rows[0], **CLOSE)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_compare_by_content_and_print_as_calls(name):
    make, (first, second) = TRANSFORMS[name]
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
    "n-grams of 0": (lambda: decoding.no_repeat_ngram_size(0), r"size: expected an int >= 1, got 0\. Leave no_repeat"),
    "no new tokens": (lambda: decoding.min_new_tokens(0), r"count: expected an int >= 1, got 0\. Leave min_new_tokens"),
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
    with pytest.raises(TypeError, match=r"count: expected integers, got float32\[2\]\. Cast them: count\.astype"):
        decoding.min_new_tokens(jnp.ones(2))


def test_a_history_without_what_a_transform_reads():
    seen = jnp.zeros(3, bool)
    for name, transform in (
        ("seen", decoding.repetition_penalty(1.2)),
        ("tokens", decoding.no_repeat_ngram_size(2)),
        ("step", decoding.min_new_tokens(2)),
    ):
        for history, got in ((None, "None"), (seen, r"bool\[3\]"), (decoding.History(), f"{name}=None")):
            with pytest.raises(TypeError, match=rf"history: expected decoding\.History\({name}=\.\.\.\), got {got}"):
                transform(jnp.ones(3), history)
