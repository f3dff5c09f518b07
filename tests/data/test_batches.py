"""Batches are pure functions of (seed, step); no token is lost, repeated or predicted across documents."""

from __future__ import annotations

import itertools
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_attention import data

SIZES = st.lists(st.integers(0, 17), min_size=1, max_size=12).filter(lambda sizes: max(sizes) > 1)
LENGTH = st.integers(1, 9)


def numbered_documents(sizes: list[int]) -> list[np.ndarray]:
    """Documents whose tokens are 1, 2, 3, …, all different."""
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) + 1 for size, end in zip(sizes, ends, strict=True)]


def concatenate(batches) -> data.Batch:
    return jax.tree.map(lambda *rows: np.concatenate(rows), *batches)


def assert_equal(one: data.Batch, other: data.Batch) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def sources() -> dict[str, data.Source]:
    return {
        "windows": data.Windows(np.arange(101), 8),
        "packed": data.PackedDocuments(numbered_documents([3, 19, 8, 1, 5, 2, 40]), 8),
    }


@pytest.fixture(params=["windows", "packed"])
def source(request) -> data.Source:
    return sources()[request.param]


# --- Every source ----------------------------------------------------------------------------------------------------


def test_a_batch_depends_on_seed_and_step_only(source):
    name = "packed" if isinstance(source, data.PackedDocuments) else "windows"
    addresses = [(seed, step) for seed in (0, 1, 2**40) for step in (0, 1, 7, 10**9)]
    first = {address: source.batch(*address, batch_size=4) for address in addresses}
    fresh = sources()[name]
    for address in reversed(addresses):
        assert_equal(first[address], fresh.batch(*address, batch_size=4))
    assert len({batch.tokens.tobytes() for batch in first.values()}) == len(addresses)


def test_shapes_and_types(source):
    for batch in (source.batch(0, 0, 5), next(source.evaluation_batches(5))):
        for name, array in batch._asdict().items():
            if array is not None:
                assert array.shape == (5, 8)
                assert array.dtype == (np.float32 if name == "weights" else np.int32)
                assert array.flags.c_contiguous
        assert set(np.unique(batch.weights)) <= {0, 1}
        assert np.all(batch.targets[batch.weights == 0] == 0)


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 6), slice(1, None, 2), slice(-1, None), slice(6, 9)])
def test_rows_of_a_process_are_rows_of_the_whole(source, rows):
    for step in (0, 3):
        assert_equal(source.batch(1, step, 6, rows=rows), jax.tree.map(lambda x: x[rows], source.batch(1, step, 6)))
    sliced = source.evaluation_batches(6, rows=rows)
    for batch, whole in zip(sliced, source.evaluation_batches(6), strict=True):
        assert_equal(batch, jax.tree.map(lambda x: x[rows], whole))


def test_evaluation_has_one_shape_and_the_same_rows_for_every_batch_size(source):
    expected = concatenate(source.evaluation_batches(1))
    for batch_size in (2, 3, 7, 50):
        batches = list(source.evaluation_batches(batch_size))
        assert len(batches) == source.evaluation_steps(batch_size)
        assert {batch.tokens.shape for batch in batches} == {(batch_size, 8)}
        batch = concatenate(batches)
        assert_equal(jax.tree.map(lambda x: x[: source.evaluation_rows], batch), expected)
        rest = jax.tree.map(lambda x: x[source.evaluation_rows :], batch)
        assert [int(np.abs(x).sum()) for x in jax.tree.leaves(rest)] == [0] * len(jax.tree.leaves(rest))
        assert batch.weights.sum() == source.predicted


def test_a_memory_map_gives_the_batches_of_the_array(source, tmp_path):
    tokens = source.tokens
    data.write_tokens(tmp_path / "t", tokens)
    mapped = type(source)(data.open_tokens(tmp_path / "t"), 8)
    assert_equal(mapped.batch(3, 5, 4), source.batch(3, 5, 4))
    assert_equal(concatenate(mapped.evaluation_batches(4)), concatenate(source.evaluation_batches(4)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 0, 4), ValueError, "seed: expected an int >= 0, got -1"),
        ((0, -1, 4), ValueError, "step: expected an int >= 0, got -1"),
        ((0, 0.5, 4), TypeError, r"step: expected a Python int .*int\(step\)"),
        ((0, 0, 0), ValueError, "batch_size: expected an int >= 1, got 0"),
        ((0, 0, 4, [0, 1]), TypeError, r"rows: expected None or a slice of the batch, got list \[0, 1\]"),
    ],
)
def test_bad_addresses(source, arguments, error, message):
    with pytest.raises(error, match=message):
        source.batch(*arguments)


def test_evaluation_checks_its_arguments_before_the_first_batch(source):
    with pytest.raises(ValueError, match="batch_size: expected an int >= 1, got 0"):
        source.evaluation_batches(0)


# --- Windows ---------------------------------------------------------------------------------------------------------


def test_windows_are_contiguous_and_targets_are_the_next_tokens():
    batch = data.Windows(np.arange(1000) * 3, 16).batch(0, 0, 64)
    assert np.all(np.diff(batch.tokens) == 3)
    np.testing.assert_array_equal(batch.targets, batch.tokens + 3)
    assert np.all(batch.weights == 1)
    assert batch.positions is None
    assert batch.segment_ids is None


def test_every_offset_is_equally_likely_the_last_included():
    source, counts = data.Windows(np.arange(24), 4), Counter()
    for step in range(100):
        counts.update(source.batch(0, step, 100).tokens[:, 0].tolist())
    assert sorted(counts) == list(range(20))  # 23 - 4 + 1 windows whose last target exists
    # chi-square with 19 degrees of freedom: exceeds 43.8 by chance once in a thousand
    assert sum((n - 500) ** 2 / 500 for n in counts.values()) < 43.8


@given(st.integers(2, 60), LENGTH)
@example(2, 1)
@example(10, 9)
@example(3, 9)
def test_evaluation_of_windows_predicts_every_token_once_but_the_first(count, length):
    source = data.Windows(np.arange(count) + 1, length)
    batch = concatenate(source.evaluation_batches(3))
    real = batch.weights == 1
    assert batch.targets[real].tolist() == list(range(2, count + 1))
    assert batch.tokens[real].tolist() == list(range(1, count))
    assert source.predicted == real.sum() == count - 1
    assert np.all(batch.tokens[~real] == 0)


def test_windows_that_do_not_fit():
    with pytest.raises(ValueError, match="at least 2 tokens, one and the next, got 1"):
        data.Windows([1], 4)
    with pytest.raises(ValueError, match=r"length: expected fewer than the 4 tokens of the text, got 4. Make windows"):
        data.Windows([1, 2, 3, 4], 4).batch(0, 0, 1)
    with pytest.raises(ValueError, match="length: expected an int >= 1, got 0"):
        data.Windows([1, 2, 3, 4], 0)
    with pytest.raises(TypeError, match=r"tokens: expected one integer array \[n\] per document, got float64\[2\]"):
        data.Windows([1.0, 2.0], 4)


# --- Packed ----------------------------------------------------------------------------------------------------------


def check_rows(batch: data.Batch, documents: list[np.ndarray]) -> None:
    """Check every row, token by token, against the definition of packing."""
    document_of = {int(token): index for index, document in enumerate(documents) for token in document}
    following = {int(a): int(b) for document in documents for a, b in itertools.pairwise(document)}
    for tokens, targets, weights, positions, segments in zip(*batch, strict=True):
        used = int(np.count_nonzero(tokens))
        assert not np.any([array[used:] for array in (tokens, targets, weights, positions, segments)])
        assert sorted(set(segments[:used])) == list(range(1, segments.max() + 1))
        for segment in range(1, segments.max() + 1):
            inside = np.flatnonzero(segments == segment)
            assert np.all(np.diff(inside) == 1)
            assert positions[inside].tolist() == list(range(len(inside)))
            assert len({document_of[int(token)] for token in tokens[inside]}) == 1
            assert np.all(np.diff(tokens[inside]) == 1)
        for token, target, weight in zip(tokens[:used].tolist(), targets.tolist(), weights.tolist(), strict=False):
            assert (target, weight) == (following.get(token, 0), float(token in following))


@given(SIZES, LENGTH, st.integers(1, 5), st.integers(0, 3))
@example([9, 9], 9, 2, 0)
@example([0, 2, 0], 1, 1, 0)
def test_an_epoch_holds_every_token_once(sizes, length, batch_size, epoch):
    # nanoVLM#204, nanochat#78: packed documents that leak into each other, tokens cut away at the ends of rows
    documents = numbered_documents(sizes)
    source = data.PackedDocuments(documents, length)
    rows = source.evaluation_rows
    steps = [source.batch(5, step, batch_size) for step in range(-(-(epoch + 1) * rows // batch_size))]
    batch = jax.tree.map(lambda x: x[epoch * rows : (epoch + 1) * rows], concatenate(steps))
    check_rows(batch, documents)
    assert sorted(batch.tokens[batch.segment_ids > 0].tolist()) == list(range(1, sum(sizes) + 1))
    firsts = {int(document[0]) for document in documents if len(document)}
    predicted = sorted(batch.targets[batch.weights > 0].tolist())
    assert predicted == [token for token in range(1, sum(sizes) + 1) if token not in firsts]
    assert source.predicted == len(predicted)


@given(SIZES, LENGTH)
def test_evaluation_of_packed_rows_predicts_every_token_once_but_the_first_of_each_document(sizes, length):
    documents = numbered_documents(sizes)
    source = data.PackedDocuments(documents, length)
    batch = concatenate(source.evaluation_batches(4))
    check_rows(batch, documents)
    firsts = {int(document[0]) for document in documents if len(document)}
    assert {*batch.targets[batch.weights > 0].tolist()} == {*range(1, sum(sizes) + 1)} - firsts
    assert batch.weights.sum() == source.predicted
    assert np.all(np.diff(batch.tokens[: source.evaluation_rows, 0]) > 0), "rows in the order of the text"
    tokens = batch.tokens[batch.tokens > 0]
    assert sorted(tokens.tolist()) == list(range(1, sum(sizes) + 1))


@given(SIZES, LENGTH)
def test_documents_that_fit_into_a_row_are_never_cut(sizes, length):
    documents = numbered_documents(sizes)
    batch = concatenate(data.PackedDocuments(documents, length).evaluation_batches(4))
    row_of = {int(token): row for row, tokens in enumerate(batch.tokens) for token in tokens if token}
    for document in documents:
        rows = {row_of[int(token)] for token in document}
        assert len(rows) <= -(-len(document) // length)


def test_each_epoch_has_another_order():
    source = data.PackedDocuments(numbered_documents([4] * 50), 4)
    orders = [source.batch(seed, epoch, 50).tokens[:, 0].tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(1, 201, 4))}
    assert len({tuple(order) for order in orders}) == 4


def test_packing_leaves_at_most_one_percent_more_rows_than_needed():
    sizes = np.random.default_rng(0).integers(1, 32, 500)
    source = data.PackedDocuments(numbered_documents(sizes.tolist()), 64)
    assert source.evaluation_rows <= 1.01 * -(-sizes.sum() // 64)


def test_pieces_are_placed_by_best_fit():
    assert data.PackedDocuments(numbered_documents([2, 7, 3, 6, 2]), 10).evaluation_rows == 2  # 7 + 3, 6 + 2 + 2


def test_packing_needs_a_document_of_two_tokens():
    with pytest.raises(ValueError, match=r"a document of at least 2 tokens.*got 2 document\(s\) of at most 1"):
        data.PackedDocuments([[1], [2]], 4)
