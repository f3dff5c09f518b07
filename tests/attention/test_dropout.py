"""Dropout depends on pairs of positions, has the right rate, and is the same forward and backward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import Dropout, attend, attention_weights, attention_weights_heads, normalizers
from tests.support.arrays import normal_arrays, query_key_value

UNIFORM = normalizers.uniform()


def pattern(dropout: Dropout, q_pos, k_pos, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
    """The pairs that `attention_weights` keeps, as booleans."""
    q, k, v = (jnp.zeros((*batch_shape, n, 2)) for n in (len(q_pos), len(k_pos), len(k_pos)))
    positions = {"query_positions": jnp.asarray(q_pos), "key_positions": jnp.asarray(k_pos)}
    run = jax.jit(lambda dropout: attention_weights(q, k, v, dropout=dropout, normalize=UNIFORM, **positions))
    return np.asarray(run(dropout)) > 0


def test_dropout_depends_on_positions():
    """Any block of rows and columns, in any order, keeps the same pairs as the whole."""
    dropout = Dropout(jax.random.key(0), 0.5)
    whole = pattern(dropout, range(8), range(9), (2, 3))
    rows, columns = np.array([6, 1, 2]), np.array([8, 0, 5, 3])
    block = pattern(dropout, rows, columns, (2, 3))
    np.testing.assert_array_equal(block, whole[..., rows[:, None], columns])
    assert len({x.tobytes() for x in np.asarray(whole).reshape(6, -1)}) == 6  # all batch elements and heads differ


def test_dropout_depends_on_rng_and_can_be_shared():
    first, other = (pattern(Dropout(jax.random.key(seed), 0.5), range(8), range(8), (3,)) for seed in (0, 1))
    assert np.any(first != other)
    shared = pattern(Dropout(jax.random.key(0), 0.5, shared=True), range(8), range(8), (3,))
    assert np.all(shared == shared[0])
    np.testing.assert_array_equal(shared[0], first[0])
    legacy = pattern(Dropout(jax.random.PRNGKey(0), 0.5), range(8), range(8), (3,))
    np.testing.assert_array_equal(legacy, first)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("old_style", [False, True])
def test_pairs_are_independent_under_every_kind_of_key(implementation, old_style):
    """jax#21405: `fold_in` of unsafe_rbg commutes, so the pattern was its own transpose and rows hardly differed."""
    make = jax.random.PRNGKey if old_style else jax.random.key
    with jax.default_prng_impl(implementation):
        key = make(7, impl=implementation)
        kept, other = (pattern(Dropout(rng, 0.5), range(64), range(64)) for rng in (key, make(8, impl=implementation)))
    assert len({row.tobytes() for row in kept}) == len({column.tobytes() for column in kept.T}) == 64
    # Of 4,096 independent pairs half agree, within 4 standard deviations; of those off the diagonal with their mirror.
    pairs = np.triu_indices(64, 1)
    for a, b in ((kept, other), (kept[pairs], kept.T[pairs]), (kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])):
        assert abs(np.mean(a == b) - 0.5) < 4 * 0.5 / np.sqrt(a.size)


def test_all_words_of_a_key_count():
    """Keys of rbg have four words; a pattern must depend on each."""
    words = np.arange(1, 5, dtype=np.uint32)
    patterns = set()
    for i in (None, 0, 1, 2, 3):
        changed = words + (np.arange(4) == i)
        rng = jax.random.wrap_key_data(jnp.asarray(changed, jnp.uint32), impl="unsafe_rbg")
        patterns.add(pattern(Dropout(rng, 0.5), range(8), range(8)).tobytes())
    assert len(patterns) == 5


@pytest.mark.parametrize("rate", [1 - 1e-11, 1 - 2.0**-33, 1.0, -0.1, float("nan")])
def test_rates_that_would_drop_everything_are_refused(rate):
    with pytest.raises(ValueError, match=r"rate: expected 0 <= rate <= 1 - 2\^-32, got"):
        Dropout(jax.random.key(0), rate)


def test_the_largest_rate_is_computed():
    q, k, v = query_key_value()
    assert np.isfinite(attend(q, k, v, dropout=Dropout(jax.random.key(0), 1 - 2.0**-32))).all()


def test_grouped_heads_drop_like_repeated_ones():
    q, k, v = normal_arrays(0, (2, 5, 4, 8), (2, 5, 2, 8), (2, 5, 2, 3))
    rule = {"dropout": Dropout(jax.random.key(0), 0.5)}
    weights = jax.jit(lambda *x: attention_weights_heads(*x, **rule))
    grouped, repeated = weights(q, k, v), weights(q, *(np.repeat(x, 2, axis=2) for x in (k, v)))
    np.testing.assert_array_equal(np.asarray(grouped) == 0, np.asarray(repeated) == 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_rate_and_expectation(rate):
    """The number of kept weights is binomial, within 4 standard deviations; they are scaled by 1 / (1 - rate)."""
    kept = np.asarray(pattern(Dropout(jax.random.key(5), rate), range(64), range(64), (4,)))
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    for axis in (-1, -2):  # no row and no column is dropped or kept as a whole
        spread = kept.mean(axis)
        assert spread.std() < 2 * np.sqrt(rate * (1 - rate) / 64)
    q, k, v = query_key_value()
    clean = attention_weights(q, k, v)
    dropped = attention_weights(q, k, v, dropout=Dropout(jax.random.key(5), rate))
    np.testing.assert_allclose(dropped, jnp.where(dropped > 0, clean / (1 - rate), 0), rtol=1e-6)


def test_dropout_is_the_same_forward_and_backward(x64):
    """Gradients equal those of a constant pattern; hand-written kernels often draw other bits in the backward pass."""
    q, k, v = query_key_value(dtype="float64")
    dropout = Dropout(jax.random.key(2), 0.5)
    kept = pattern(dropout, range(5), range(6))
    normalize_kept = lambda z, where: jnp.where(kept, jax.nn.softmax(z) * 2, 0)  # noqa: E731
    by_rng = jax.jit(jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x, dropout=dropout))), (0, 1, 2)))(q, k, v)
    by_hand = jax.jit(jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x, normalize=normalize_kept))), (0, 1, 2)))(q, k, v)
    for actual, expected in zip(by_rng, by_hand, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


def test_rate_zero_is_no_dropout():
    q, k, v = query_key_value()
    np.testing.assert_array_equal(attend(q, k, v, dropout=Dropout(jax.random.key(0), 0.0)), attend(q, k, v))
