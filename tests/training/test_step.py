"""One pure step: gradients weighted by tokens however they are accumulated, dropout by step, bad steps skipped."""

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
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD
from tests.training.tiny import Bigram

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
"""Rows with 6, 1, 3 and 2 targets: a mean of means would weigh them wrongly."""


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
    """https://github.com/google-deepmind/optax/issues/472."""
    whole, metrics = step(start(), RAGGED)
    parts, partial_metrics = step(start(), RAGGED, accumulate=accumulate)
    assert_close(whole.model, parts.model)
    assert_close(metrics, partial_metrics)
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
"""For two tests, so that they share a program."""


def test_smoothing_and_z_loss_move_the_objective_not_the_loss():
    plain, other = step(start(), RAGGED)[1], step(start(), RAGGED, **OPTIONS)[1]
    np.testing.assert_allclose(plain["loss"], other["loss"], rtol=FORWARD["float32"])
    assert float(other["objective"]) > float(plain["objective"])


@pytest.mark.slow
def test_packed_batches_are_used_as_packed():
    tokens, zeros = RAGGED.tokens, np.zeros((B, T), np.int32)
    two = data.Batch(
        tokens, RAGGED.targets, np.ones((B, T), np.float32), zeros + np.arange(T) % 3, zeros + np.arange(T) // 3
    )
    halves = data.Batch(*(np.reshape(x, (2 * B, 3)) for x in two[:3]))
    assert_close(step(start(TRANSFORMER), two)[0].model, step(start(TRANSFORMER), halves)[0].model)


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


def test_bad_steps_are_skipped_counted_and_survived():
    optimizer = training.make_optimizer(training.OptimizerConfig(warmup=0), steps=10)
    take = jax.jit(training.make_train_step(optimizer))
    poisoned = jax.tree.map(lambda x: x, MODEL)
    poisoned.kernel[...] = jnp.asarray(np.full(MODEL.kernel.shape, np.nan, np.float32))
    state = start(poisoned, optimizer)
    state, metrics = take(state, RAGGED)
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"]), int(state.step)) == (1, 1, 1)
    assert not np.isfinite(metrics["loss"])
    np.testing.assert_array_equal(state.model.embedding[...], MODEL.embedding[...])
    healed = training.TrainState(MODEL, state.optimizer_state, state.step, state.rng)
    _, metrics = take(healed, RAGGED)
    assert (int(metrics["skipped"]), int(metrics["skipped_in_a_row"])) == (0, 0)


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
def test_training_learns_something_that_can_be_learnt():
    """Tokens that count up: after 60 steps less than a tenth of the first loss, log V, is left."""
    config = training.OptimizerConfig(learning_rate=1e-2, warmup=5)
    optimizer = training.make_optimizer(config, steps=60)
    take = jax.jit(training.make_train_step(optimizer), donate_argnums=0)
    state = start(models.create(CONFIG), optimizer)
    for n in range(60):
        begin = np.random.default_rng(n).integers(0, V, (B, 1))
        tokens = (begin + np.arange(T + 1)) % V
        state, metrics = take(state, data.Batch(tokens[:, :-1], tokens[:, 1:], np.ones((B, T), np.float32)))
    assert float(metrics["loss"]) < 0.1 * np.log(V)
