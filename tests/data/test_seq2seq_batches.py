"""Sequence-to-sequence batches: pure in (seed, step), all pairs equally likely, each evaluated once; training."""

from __future__ import annotations

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_attention import cache, data, models, training
from jax_attention.training.losses import seq2seq_loss
from tests.models import small

START, STOP = 1, 2
SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


def numbered_pairs(sizes) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sources whose tokens are all different, and targets that count up from the first source token plus 1000."""
    fresh = itertools.count(10)
    sources, targets = [], []
    for source, target in sizes:
        sources.append(np.array([next(fresh) for _ in range(source)], np.uint16))
        targets.append(np.arange(target, dtype=np.int64) + 1000 + int(sources[-1][0]))
    return sources, targets


def rows_of(batch: data.Seq2SeqBatch) -> list[tuple]:
    """(source, target) of each row without padding, start and stop; None for a padding row."""
    rows = []
    for source, positions, tokens, targets, weights in zip(*batch, strict=True):
        m, n = int((positions != cache.EMPTY).sum()), int(weights.sum())
        assert positions[:m].tolist() == list(range(m))
        assert np.all(positions[m:] == cache.EMPTY)
        assert weights.tolist() == [1] * n + [0] * (len(weights) - n)
        assert not np.any(source[m:])
        assert not np.any(tokens[n:])
        assert not np.any(targets[n:])
        if n == 0:
            assert (m, source[0]) == (1, 0)
            rows.append(None)
        else:
            assert (tokens[0], targets[n - 1]) == (START, STOP)
            assert tokens[1:n].tolist() == targets[: n - 1].tolist()
            rows.append((tuple(source[:m].tolist()), tuple(tokens[1:n].tolist())))
    return rows


def as_tuples(sources, targets) -> list[tuple]:
    return [(tuple(x.tolist()), tuple(y.tolist())) for x, y in zip(sources, targets, strict=True)]


def assert_equal(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


SAMPLE = numbered_pairs([(1, 0), (3, 4), (4, 3), (5, 1), (9, 9), (2, 2), (4, 4), (1, 8), (3, 3), (4, 7)])


@pytest.fixture
def pairs() -> data.Seq2SeqBatches:
    return data.Seq2SeqBatches(*SAMPLE, start=START, stop=STOP, multiple=4)


@given(SIZES, st.integers(1, 5), st.integers(1, 4))
@example([(1, 0)], 1, 3)
@example([(4, 3), (4, 4), (5, 3)], 4, 2)
def test_evaluation_holds_each_pair_once(sizes, multiple, batch_size):
    sources, targets = numbered_pairs(sizes)
    pairs = data.Seq2SeqBatches(sources, targets, start=START, stop=STOP, multiple=multiple)
    batches = list(pairs.evaluation_batches(batch_size))
    rows = [row for batch in batches for row in rows_of(batch)]
    expected = as_tuples(sources, targets)
    assert [row for row in rows if row] == [expected[i] for i in pairs.order]
    assert sorted(pairs.order.tolist()) == list(range(len(sizes)))
    assert len(batches) == pairs.evaluation_steps(batch_size)
    assert pairs.evaluation_rows == len(sizes)
    assert pairs.predicted == sum(batch.weights.sum() for batch in batches) == sum(n + 1 for _, n in sizes)
    assert pairs.shapes == Counter(tuple(-(-x // multiple) * multiple for x in (m, n + 1)) for m, n in sizes)
    shapes = [(batch.source.shape[1], batch.tokens.shape[1]) for batch in batches]
    assert shapes == [shape for shape, count in pairs.shapes.items() for _ in range(-(-count // batch_size))]


def test_shapes_and_types(pairs):
    for batch in (pairs.batch(0, 0, 5), next(pairs.evaluation_batches(5))):
        assert (batch.source.shape[1], batch.tokens.shape[1]) in pairs.shapes
        for name, array in batch._asdict().items():
            assert array.shape == (batch.source if name.startswith("source") else batch.tokens).shape
            assert len(array) == 5
            assert array.dtype == (np.float32 if name == "weights" else np.int32)
            assert array.flags.c_contiguous


def test_a_batch_depends_on_seed_and_step_only(pairs):
    addresses = [(seed, step) for seed in (0, 1, 2**40) for step in (0, 1, 7, 10**9)]
    first = {address: pairs.batch(*address, batch_size=16) for address in addresses}
    fresh = data.Seq2SeqBatches(*SAMPLE, start=START, stop=STOP, multiple=4)
    for address in reversed(addresses):
        assert_equal(first[address], fresh.batch(*address, batch_size=16))
    assert len({batch.source.tobytes() for batch in first.values()}) > len(addresses) / 2


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 6), slice(1, None, 2), slice(-1, None), slice(6, 9)])
def test_rows_of_a_process_are_rows_of_the_whole(pairs, rows):
    for step in (0, 3):
        assert_equal(pairs.batch(1, step, 6, rows=rows), [x[rows] for x in pairs.batch(1, step, 6)])
    for part, whole in zip(pairs.evaluation_batches(6, rows=rows), pairs.evaluation_batches(6), strict=True):
        assert_equal(part, [x[rows] for x in whole])


def test_every_pair_is_equally_likely_and_the_rows_of_a_batch_are_of_one_group():
    sources, targets = numbered_pairs([(1, 0)] * 6 + [(5, 0)] * 3 + [(9, 9)])
    pairs = data.Seq2SeqBatches(sources, targets, start=START, stop=STOP, multiple=4)
    all_pairs = as_tuples(sources, targets)
    counts = Counter()
    for step in range(4000):
        rows = rows_of(pairs.batch(3, step, 2))
        counts.update(all_pairs.index(row) for row in rows)
        assert len({len(row[0]) for row in rows}) == 1
    assert sorted(counts) == list(range(10))
    # 8000 rows, the two of a batch from one group: the standard deviation is at most sqrt(2 * 8000 * 0.1 * 0.9) = 38.
    assert all(abs(count - 800) < 4 * 38 for count in counts.values())


def test_longest_leaves_pairs_out_and_bounds_every_array():
    pairs = data.Seq2SeqBatches(*SAMPLE, start=START, stop=STOP, multiple=4, longest=6)
    assert pairs.left_out == 3
    assert max(itertools.chain(*pairs.shapes)) == 6
    rows = [row for batch in pairs.evaluation_batches(3) for row in rows_of(batch) if row]
    assert sorted(rows) == sorted(row for row in as_tuples(*SAMPLE) if len(row[0]) <= 6 and len(row[1]) + 1 <= 6)
    assert data.Seq2SeqBatches(*SAMPLE, start=START, stop=STOP).left_out == 0


def test_padded_rows():
    tokens, positions = data.pad_rows([np.array([5, 6, 7], np.uint16), [8]])
    assert tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert positions.tolist() == [[0, 1, 2], [0, cache.EMPTY, cache.EMPTY]]
    assert tokens.dtype == positions.dtype == np.int32
    assert data.pad_rows(np.ones((2, 3), int))[1].tolist() == [[0, 1, 2]] * 2
    assert data.pad_rows([[4]])[0].tolist() == [[4]]


OPTIONS = {"start": 1, "stop": 2}


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[1]], []), {}, ValueError, "targets: expected one for each of the 1 sources, got 0"),
        (([], []), {}, ValueError, "sources: expected at least one pair, got none"),
        (([[1], []], [[1], [1]]), {}, ValueError, "sources: expected at least one token in each, got none in number 1"),
        (([[1.5]], [[1]]), {}, TypeError, r"sources: expected one integer array \[n\] per document, got float64\[1\]"),
        (([1, 2], [[1]]), {}, TypeError, "sources: expected one integer array"),
        ((3, [[1]]), {}, TypeError, "sources: expected a list of integer arrays, got int 3. Encode"),
        (("ab", [[1]]), {}, TypeError, "sources: expected a list of integer arrays, got str 'ab'. Encode"),
        (([[1]], [[-1]]), {}, ValueError, "targets: expected ids from 0, got -1"),
        (([[1]], [[1]]), {"start": -1}, ValueError, "start: expected an int >= 0, got -1"),
        (([[1]], [[1]]), {"stop": 0.5}, TypeError, "stop: expected a Python int"),
        (([[1]], [[1]]), {"multiple": 0}, ValueError, "multiple: expected an int >= 1, got 0"),
        (([[1]], [[1]]), {"longest": 0}, ValueError, "longest: expected an int >= 1, got 0"),
        (([[1]], [[1]]), {"longest": 1}, ValueError, "longest: expected room for .*, got 1 where the shortest needs 2"),
    ],
)
def test_wrong_pairs(arguments, options, error, message):
    with pytest.raises(error, match=message):
        data.Seq2SeqBatches(*arguments, **OPTIONS | options)


def test_bad_addresses_and_rows(pairs):
    for arguments, error, message in [
        ((-1, 0, 4), ValueError, "seed: expected an int >= 0, got -1"),
        ((0, 0.5, 4), TypeError, r"step: expected a Python int .*int\(step\)"),
        ((0, 0, 0), ValueError, "batch_size: expected an int >= 1, got 0"),
        ((0, 0, 4, [0, 1]), TypeError, r"rows: expected None or a slice of the batch, got list \[0, 1\]"),
    ]:
        with pytest.raises(error, match=message):
            pairs.batch(*arguments)
    with pytest.raises(ValueError, match="batch_size: expected an int >= 1, got 0"):
        pairs.evaluation_batches(0)
    with pytest.raises(ValueError, match="rows: expected at least one row, got none"):
        data.pad_rows([])
    with pytest.raises(ValueError, match="rows: expected at least one token in each, got none in number 1"):
        data.pad_rows([[1], []])


def pair_config() -> models.EncoderDecoderConfig:
    shared = {"vocab_size": 14, "width": 8, "depth": 1, "num_heads": 2}
    encoder, decoder = models.LMConfig(mask=None, **shared), models.LMConfig(memory_size=8, **shared)
    return models.EncoderDecoderConfig(encoder=encoder, decoder=decoder)


@pytest.mark.slow
def test_pairs_train_and_evaluate_a_model():
    sources, targets = data.tasks.copy(np.random.default_rng(0), 40, (1, 3), 12)
    pairs = data.Seq2SeqBatches(sources, targets, start=12, stop=13, multiple=4)
    assert list(pairs.shapes) == [(4, 4)]
    assert isinstance(pairs, data.Batches)
    optimizer = training.make_optimizer(training.OptimizerConfig(learning_rate=3e-2, warmup=2), steps=20)
    state = training.init_state(models.create(pair_config()), optimizer, rng=jax.random.key(0))
    evaluate = training.make_evaluate(pairs, 16, evaluate_step=seq2seq_loss)
    before = evaluate(state.model)
    assert before["tokens"] == pairs.predicted
    config = training.LoopConfig(steps=20, batch_size=8, log_every=0, evaluate_every=0, checkpoint_every=0)
    step = training.make_train_step(optimizer, loss=seq2seq_loss)
    fitted = training.fit(state, step, pairs, config, evaluate=evaluate)
    assert fitted.evaluation["loss"] < before["loss"] - 0.5


@pytest.mark.slow
def test_padding_changes_no_loss_and_no_gradient():
    model = small.filled(lambda: models.create(pair_config()))
    sources, targets = [[3, 4, 5], [6]], [[7], [8, 9]]
    loss = jax.jit(jax.value_and_grad(lambda model, batch: seq2seq_loss(model, batch).objective))
    unpadded = [
        data.Seq2SeqBatches([x], [y], start=12, stop=13, multiple=1) for x, y in zip(sources, targets, strict=True)
    ]
    separate = [loss(model, next(pairs.evaluation_batches(1))) for pairs in unpadded]
    padded = data.Seq2SeqBatches(sources, targets, start=12, stop=13, multiple=4)
    together = loss(model, next(padded.evaluation_batches(3)))  # two pairs and one padding row
    for one, other, both in zip(*map(jax.tree.leaves, [*separate, together]), strict=True):
        assert bool(jnp.all(jnp.isfinite(both)))
        np.testing.assert_allclose(one + other, both, rtol=1e-4, atol=1e-5)
