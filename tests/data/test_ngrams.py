"""Counts by NumPy against counts by dictionaries, and what they must say of text whose entropy is known."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import data
from jax_attention.data.ngram import BIGRAM_GRID, UNIGRAM_GRID
from tests.support.tolerances import FORWARD

EXACT = {"rel": FORWARD["float64"], "abs": FORWARD["float64"]}
VOCABULARY = 5
DOCUMENTS = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=12), min_size=1, max_size=4).filter(
    lambda documents: any(len(document) > 1 for document in documents)
)


def pairs(documents):
    return [pair for document in documents for pair in itertools.pairwise(document)]


def by_dictionaries(train, held_out, k, m, vocab_size):
    """The definition, one token at a time."""
    count, both = Counter(itertools.chain(*train)), Counter(pairs(train))
    before, total = Counter(s for s, _ in pairs(train)), sum(len(document) for document in train)

    def unigram(t):
        return (count[t] + k) / (total + k * vocab_size)

    def bigram(s, t):
        return (both[s, t] + m * unigram(t)) / (before[s] + m)

    assert math.isclose(sum(map(unigram, range(vocab_size))), 1)
    assert all(math.isclose(sum(bigram(s, t) for t in range(vocab_size)), 1) for s in range(vocab_size))
    asked = pairs(held_out)
    return [
        -sum(math.log(unigram(t)) for _, t in asked) / len(asked),
        -sum(math.log(bigram(s, t)) for s, t in asked) / len(asked),
    ]


@given(DOCUMENTS, DOCUMENTS, st.sampled_from([VOCABULARY, 5000]))
def test_figures_are_those_of_the_definition(train, held_out, vocab_size):
    arrays = [[np.array(d, np.int32) for d in part] for part in (train, held_out)]
    found = data.ngram_baselines(*arrays, vocab_size, held_out_bytes=7, extra_bits=3.0)
    if vocab_size == VOCABULARY:
        wanted = by_dictionaries(train, held_out, found.unigram.smoothing, found.bigram.smoothing, vocab_size)
        assert [gram.nats_per_token for gram in found] == pytest.approx(wanted, **EXACT)
    for gram in found:
        bits = gram.nats_per_token * len(pairs(held_out)) / math.log(2)
        assert gram.bits_per_byte == pytest.approx((bits + 3) / 7, **EXACT)


def test_tables_and_sorted_pairs_agree(monkeypatch):
    rng = np.random.default_rng(0)
    train, held_out = rng.integers(0, 50, 2000), rng.integers(0, 60, 300)
    table = data.ngram_baselines(train, held_out, 60, 300)
    monkeypatch.setattr("jax_attention.data.ngram.TABLE_ENTRIES", 0)
    assert data.ngram_baselines(train, held_out, 60, 300) == table


@given(DOCUMENTS)
def test_smoothing_is_chosen_by_leaving_out_each_training_token(train):
    arrays = [np.array(document, np.int32) for document in train]
    found = data.ngram_baselines(arrays, arrays, VOCABULARY, 1)
    count, both = Counter(itertools.chain(*train)), Counter(pairs(train))
    before, total = Counter(s for s, _ in pairs(train)), sum(map(len, train))

    def left_out_unigram(k):
        return sum(n * math.log((n - 1 + k) / (total - 1 + k * VOCABULARY)) for n in count.values())

    def left_out_bigram(m, k=found.unigram.smoothing):
        def unigram(t):
            return (count[t] + k) / (total + k * VOCABULARY)

        return sum(n * math.log((n - 1 + m * unigram(t)) / (before[s] - 1 + m)) for (s, t), n in both.items())

    for grid, chosen, score in (
        (UNIGRAM_GRID, found.unigram.smoothing, left_out_unigram),
        (BIGRAM_GRID, found.bigram.smoothing, left_out_bigram),
    ):
        assert score(chosen) == pytest.approx(max(map(score, grid)), **EXACT)


def test_a_known_chain_is_measured():
    """A chain that stays with 0.9: unigrams see one bit, bigrams the entropy of 0.9 : 0.1."""
    steps = np.random.default_rng(1).random(60_000) < 0.1
    text = np.cumsum(steps) % 2
    found = data.ngram_baselines(text[:50_000], text[50_000:], 2, held_out_bytes=9999)
    entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    # sampling error: the standard deviation of the surprise is about log2(9) * 0.3, over the root of 10,000
    assert found.unigram.bits_per_byte == pytest.approx(1, abs=0.03)
    assert found.bigram.bits_per_byte == pytest.approx(entropy, abs=0.03)


def test_counting_ends_at_documents():
    train = [np.array([0, 1])] * 100  # nothing follows 1, unless a pair reaches into the next document
    inside = data.ngram_baselines(train, [np.array([1, 0])], 2, 1)
    across = data.ngram_baselines(np.concatenate(train), np.array([1, 0]), 2, 1)
    assert inside.bigram.bits_per_byte == pytest.approx(1, **EXACT)
    assert across.bigram.bits_per_byte < 0.1


@pytest.mark.parametrize(
    ("train", "held_out", "size", "byte_count", "message"),
    [
        ([1], [0, 1], 2, 1, "train: expected a document of at least 2 tokens, got none"),
        ([0, 1], [0], 2, 1, "held_out: expected a document of at least 2 tokens, got none"),
        ([0, 2], [0, 1], 2, 1, "train: expected ids below vocab_size 2, got 2"),
        ([0, 1], [0, 2], 2, 1, "held_out: expected ids below vocab_size 2, got 2"),
        ([0, 1], [0, 1], 2, 0, "held_out_bytes: expected an int >= 1, got 0"),
    ],
)
def test_bad_arguments(train, held_out, size, byte_count, message):
    with pytest.raises(ValueError, match=message):
        data.ngram_baselines(np.array(train), np.array(held_out), size, byte_count)
