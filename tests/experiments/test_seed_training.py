"""Training from several seeds and greedy decoding: reproducible by seed, different between seeds, no row lost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.seed_training import ArrayBatches, TrainingConfig, count_parameters, train_seeds, truncate_at_stop
from experiments.seq2seq_models import RULES, TRANSFORMER, Sizes, greedy_decode, seq2seq_model
from jax_attention import models, training

SLOPES = np.array([2.0, -1.0, 0.5])


def linear_loss(model, batch, rng=None, **_) -> training.Losses:
    error = jnp.square(batch.x @ model["w"] - batch.y)
    return training.Losses(error.sum(), error.sum(), jnp.float32(error.size))


def source() -> ArrayBatches:
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    return ArrayBatches(x=x, y=(x @ SLOPES).astype(np.float32))


def test_rows_are_a_function_of_seed_and_step():
    rows = source()
    first, again, other = (rows.batch(seed, 3, 4) for seed in (5, 5, 6))
    assert first._fields == ("x", "y")
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)
    np.testing.assert_allclose(first.x @ SLOPES, first.y, rtol=1e-5)


def test_equal_seeds_train_equally_and_different_seeds_differently():
    config = TrainingConfig(steps=200, batch_size=8, learning_rate=0.1, seeds=(0, 1, 0))
    create = lambda rng: {"w": jax.random.normal(rng, (3,))}  # noqa: E731
    one, two, three = train_seeds(create, source(), config, linear_loss)
    np.testing.assert_array_equal(one.losses, three.losses)
    assert one.losses.shape == (200,)
    assert one.losses[0] != two.losses[0]
    for trained in (one, two):
        assert trained.losses[-1] < 1e-3 < trained.losses[0]
        np.testing.assert_allclose(trained.model["w"], SLOPES, atol=0.05)
        assert trained.seconds > 0
    assert count_parameters(one.model) == 3


def test_a_seed_decides_initial_parameters_and_batches():
    """One row leaves only initial parameters to differ, constant initial parameters leave only batches."""
    random_start, constant_start = lambda rng: {"w": jax.random.normal(rng, (3,))}, lambda rng: {"w": jnp.zeros(3)}
    one_row = ArrayBatches(x=np.ones((1, 3), np.float32), y=np.ones(1, np.float32))
    for create, rows in ((random_start, one_row), (constant_start, source())):
        first, other = train_seeds(create, rows, TrainingConfig(steps=1, batch_size=4, seeds=(0, 1)), linear_loss)
        assert first.losses[0] != other.losses[0]


def test_rows_end_before_their_first_stop():
    assert truncate_at_stop(np.array([[4, 9, 5, 9], [9, 1, 1, 1], [1, 2, 3, 4]]), stop=9) == [[4], [], [1, 2, 3, 4]]


@pytest.mark.slow
def test_decoding_in_batches_equals_decoding_at_once():
    """The last batch is filled up to the size of the others and truncated again."""
    shapes = jax.eval_shape(seq2seq_model("dot", 7, 6, Sizes(width=8)), jax.random.key(0))
    draws = np.random.default_rng(0)  # NumPy draws without a compiled program
    model = jax.tree.map(lambda leaf: draws.normal(scale=0.5, size=leaf.shape).astype(leaf.dtype), shapes)
    sources = [np.arange(n) % 7 for n in (3, 5, 2, 6, 4)]
    together = greedy_decode(model, sources, start=4, stop=5, max_words=4)
    assert len(together) == 5
    assert greedy_decode(model, sources, start=4, stop=5, max_words=4, batch_size=2) == together


def test_every_name_is_a_model():
    sizes = Sizes(width=8, depth=1, heads=2)
    kinds = {
        name: jax.eval_shape(seq2seq_model(name, 7, 6, sizes, 9), jax.random.key(0)) for name in (*RULES, TRANSFORMER)
    }
    assert isinstance(kinds.pop(TRANSFORMER), models.EncoderDecoder)
    assert all(isinstance(model, models.RNNSeq2Seq) for model in kinds.values())
    assert {name for name, model in kinds.items() if model.config.score is None} == {"no attention"}
    assert kinds["location"].config.context == 9
