"""One training step: gradients weighted by targets, accumulation, dropout by step, skipped updates."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jax_attention import data, models, training
from tests.models.small import filled
from tests.support.bigram import Bigram
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD

B, T, V = 4, 6, 7
RNG = np.random.default_rng(0)
CONFIG = models.tiny(vocab_size=V, width=16, num_heads=2, depth=1)
TRANSFORMER = filled(lambda: models.create(CONFIG))


class WithoutDropout(Bigram):
    def hidden(self, tokens, positions=None, segment_ids=None, rng=None):
        return super().hidden(tokens)


MODEL = filled(lambda: WithoutDropout(nnx.Rngs(0)))
SGD = optax.sgd(1.0)


def batch(weights=None):
    tokens = RNG.integers(0, V, (B, T + 1))
    weights = np.ones((B, T)) if weights is None else weights
    return data.Batch(tokens[:, :-1], tokens[:, 1:], weights.astype(np.float32))


RAGGED = batch(np.arange(T) < np.array([6, 1, 3, 2])[:, None])
"""Rows with 6, 1, 3 and 2 targets: a mean of the rows' means would weight targets unequally."""


@functools.cache
def compiled(**options):
    return jax.jit(training.make_train_step(SGD, **options))


def step(state, batch, **options):
    return compiled(**options)(state, batch)


def start(model=MODEL, optimizer=SGD):
    return jax.jit(lambda model: training.init_state(model, optimizer, rng=jax.random.key(1)))(model)


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=FORWARD["float32"], atol=FORWARD["float32"])


@pytest.mark.parametrize("accumulate", [2, *slow(4)])
def test_accumulation_counts_every_target_the_same(accumulate):
    """https://github.com/google-deepmind/optax/issues/472: microbatches with few targets counted too much."""
    whole, metrics = step(start(), RAGGED)
    accumulated, accumulated_metrics = step(start(), RAGGED, accumulate=accumulate)
    assert_close(whole.model, accumulated.model)
    assert_close(metrics, accumulated_metrics)
    assert float(metrics["tokens"]) == 12


def test_step_is_the_gradient_of_the_mean_over_targets():
    def mean(model):
        logits = model.unembed(model.hidden(RAGGED.tokens)[0])
        rows = optax.softmax_cross_entropy_with_integer_labels(logits, RAGGED.targets)
        return jnp.sum(rows * RAGGED.weights) / jnp.sum(RAGGED.weights)

    loss, gradient = jax.jit(jax.value_and_grad(mean))(MODEL)
    after, metrics = step(start(), RAGGED)
    assert_close(after.model, jax.tree.map(lambda p, g: np.asarray(p) - np.asarray(g), MODEL, gradient))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=FORWARD["float32"])
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in map(np.asarray, jax.tree.leaves(gradient))))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=FORWARD["float32"])
    assert int(after.step) == 1


OPTIONS = {
    "label_smoothing": 0.2,
    "z_loss": 0.01,
    "schedule": training.make_schedule(training.OptimizerConfig(warmup=4), steps=10),
}
"""Options of two tests, which so share a compiled program."""


def test_smoothing_and_z_loss_change_the_objective_but_not_the_loss():
    plain, other = step(start(), RAGGED)[1], step(start(), RAGGED, **OPTIONS)[1]
    np.testing.assert_allclose(plain["loss"], other["loss"], rtol=FORWARD["float32"])
    assert float(other["objective"]) > float(plain["objective"])


@pytest.mark.slow
def test_a_packed_row_equals_separate_rows():
    tokens, zeros = RAGGED.tokens, np.zeros((B, T), np.int32)
    packed = data.Batch(
        tokens, RAGGED.targets, np.ones((B, T), np.float32), zeros + np.arange(T) % 3, zeros + np.arange(T) // 3
    )
    separate = data.Batch(*(np.reshape(x, (2 * B, 3)) for x in packed[:3]))
    assert_close(step(start(TRANSFORMER), packed)[0].model, step(start(TRANSFORMER), separate)[0].model)


def test_dropout_draws_from_the_step_and_the_rng():
    model = filled(lambda: Bigram(nnx.Rngs(0)))
    take = jax.jit(training.make_train_step(SGD))
    first = start(model)
    again = training.TrainState(model, first.optimizer_state, first.step, first.rng)
    later = training.TrainState(model, first.optimizer_state, first.step + 1, first.rng)
    other = training.TrainState(model, first.optimizer_state, first.step, jax.random.key(2))
    losses = [float(take(state, RAGGED)[1]["loss"]) for state in (first, again, later, other)]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_nonfinite_updates_are_skipped_and_counted():
    optimizer = training.make_optimizer(training.OptimizerConfig(warmup=0), steps=10)
    take = jax.jit(training.make_train_step(optimizer))
    nan_model = jax.tree.map(lambda x: x, MODEL)
    nan_model.kernel[...] = jnp.asarray(np.full(MODEL.kernel.shape, np.nan, np.float32))
    state = start(nan_model, optimizer)
    state, metrics = take(state, RAGGED)
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"]), int(state.step)) == (1, 1, 1)
    assert not np.isfinite(metrics["loss"])
    np.testing.assert_array_equal(state.model.embedding[...], MODEL.embedding[...])
    recovered = training.TrainState(MODEL, state.optimizer_state, state.step, state.rng)
    _, metrics = take(recovered, RAGGED)
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"])) == (0, 0)


def test_a_loss_that_is_not_finite_is_skipped_though_its_gradient_is_finite():
    optimizer = training.refuse_nonfinite(SGD)

    def loss(model, batch, rng=None, **_):
        return training.Losses(model.sum() + batch.sum(), batch.sum(), jnp.float32(1))

    take = jax.jit(training.make_train_step(optimizer, loss=loss))
    start = training.init_state(jnp.ones(3), optimizer, rng=jax.random.key(0))
    after, metrics = take(start, jnp.array([[jnp.nan]]))
    np.testing.assert_array_equal(after.model, start.model)
    assert int(metrics["skipped"]) == 1
    assert int(take(start, jnp.zeros((1, 1)))[1]["skipped"]) == 0


NO_CLASS = RAGGED._replace(targets=np.where(RAGGED.weights > 0, -100, RAGGED.targets))
SOME_IGNORED = RAGGED._replace(targets=np.where(np.arange(T) % 2 == 0, -100, RAGGED.targets))


def test_targets_that_are_no_class_are_skipped_and_counted():
    """optax#1185, pytorch/xla#4552: -100 trained class V - 100, and a target beyond V lost its gradient in silence."""
    optimizer = training.make_optimizer(training.OptimizerConfig(warmup=0), steps=10)
    state = start(MODEL, optimizer)
    after, metrics = jax.jit(training.make_train_step(optimizer))(state, NO_CLASS)
    assert_close(after.model, MODEL)
    assert int(metrics["skipped"]) == 1
    assert np.isnan(metrics["loss"])


def test_ignored_targets_train_and_evaluate_as_targets_of_weight_0():
    loss = functools.partial(training.language_model_loss, ignore_index=-100)
    by_weight = RAGGED._replace(weights=np.where(SOME_IGNORED.targets == -100, 0, RAGGED.weights))
    ignored, metrics = jax.jit(training.make_train_step(SGD, loss=loss))(start(), SOME_IGNORED)
    expected, expected_metrics = step(start(), by_weight)
    assert_close((ignored.model, metrics), (expected.model, expected_metrics))
    assert 0 < float(metrics["tokens"]) < RAGGED.weights.sum()

    class Source:
        def evaluation_batches(self, batch_size):
            yield SOME_IGNORED

    evaluation = training.make_evaluate(Source(), B, evaluate_step=loss)(MODEL)
    np.testing.assert_allclose(evaluation["loss"], metrics["loss"], rtol=FORWARD["float32"])


def test_a_batch_without_targets_changes_nothing():
    after, metrics = step(start(), batch(np.zeros((B, T))))
    assert_close(after.model, MODEL)
    assert float(metrics["loss"]) == 0


def test_bfloat16_computes_in_half_and_keeps_parameters_in_float32():
    model = filled(lambda: models.create(models.tiny(vocab_size=V, width=16, num_heads=2, depth=1, dtype="bfloat16")))
    after, metrics = step(start(model), RAGGED)
    assert {x.dtype for x in jax.tree.leaves(after.model)} == {jnp.dtype(jnp.float32)}
    text = str(jax.make_jaxpr(training.make_train_step(SGD))(start(model), RAGGED))
    assert "bf16" in text
    exact = jax.jit(training.language_model_loss)(TRANSFORMER, RAGGED)
    np.testing.assert_allclose(metrics["loss"], exact.nats / exact.weight, rtol=2**-8)


def test_learning_rate_is_reported():
    _, metrics = step(start(), RAGGED, **OPTIONS)
    np.testing.assert_allclose(metrics["learning_rate"], 1e-3 / 4, rtol=1e-6)


def test_accumulate_must_divide_the_rows():
    with pytest.raises(ValueError, match="accumulate: expected a divisor of the batch's 4 rows, got 3"):
        step(start(), RAGGED, accumulate=3)


@pytest.mark.slow
def test_training_learns_to_count():
    """Tokens count up: after 60 steps the loss is less than a tenth of the first one, log V."""
    config = training.OptimizerConfig(learning_rate=1e-2, warmup=5)
    optimizer = training.make_optimizer(config, steps=60)
    take = jax.jit(training.make_train_step(optimizer), donate_argnums=0)
    state = start(models.create(CONFIG), optimizer)
    for n in range(60):
        first = np.random.default_rng(n).integers(0, V, (B, 1))
        tokens = (first + np.arange(T + 1)) % V
        state, metrics = take(state, data.Batch(tokens[:, :-1], tokens[:, 1:], np.ones((B, T), np.float32)))
    assert float(metrics["loss"]) < 0.1 * np.log(V)
