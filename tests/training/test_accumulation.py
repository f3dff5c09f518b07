"""Sums in at least float32 for parameters in half precision: microbatches, norm, clipping, running means, evaluation.

optax#1552 (https://github.com/google-deepmind/optax/issues/1552), Megatron-LM#4028, fairscale#263, maxtext#5143: sums
in the parameters' dtype.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_attention import training
from jax_attention.training import accumulation

BF16 = 2.0**-8
"""Relative spacing of bfloat16: the results are rounded to it once, after all sums."""


def linear_loss(model, batch, rng=None, **_):
    """Objective with the gradient batch.sum() in each parameter, and one unit of weight for each batch row of 1."""
    total = batch.sum()
    return training.Losses((model * total.astype(model.dtype)).sum(), total, total)


def train(model, batch, **options):
    state = training.init_state(model, optax.sgd(1.0), rng=jax.random.key(0))
    step = jax.jit(training.make_train_step(optax.sgd(1.0), loss=linear_loss, **options))
    return step(state, batch)


def test_microbatches_of_bfloat16_gradients_are_summed_in_float32():
    """1,024 gradients of 1/1024: 0.25 in bfloat16, where a sum stops growing at 256 times its terms."""
    batch = jnp.full((1024, 1), 2.0**-10, jnp.float32)
    state, metrics = train(jnp.zeros((), jnp.bfloat16), batch, accumulate=1024)
    assert (float(state.model), state.model.dtype) == (-1.0, jnp.bfloat16)
    assert {name: float(metrics[name]) for name in ("grad_norm", "loss", "tokens")} == {
        "grad_norm": 1.0,
        "loss": 1.0,
        "tokens": 1.0,
    }


def test_losses_of_a_loss_in_bfloat16_are_summed_in_float32():
    batch = jnp.full((1024, 1), 2.0**-10, jnp.bfloat16)
    _, metrics = train(jnp.zeros((), jnp.bfloat16), batch, accumulate=1024)
    assert float(metrics["tokens"]) == 1.0
    assert metrics["tokens"].dtype == jnp.float32


def test_a_gradient_in_float16_is_divided_by_more_targets_than_float16_can_count():
    """100,000 targets are inf in float16: the gradient was divided away to 0."""

    def loss(model, batch, rng=None, **_):
        return training.Losses(60_000 * model, batch.sum(), jnp.float32(100_000))

    state = training.init_state(jnp.zeros((), jnp.float16), optax.sgd(1.0), rng=jax.random.key(0))
    state, _ = jax.jit(training.make_train_step(optax.sgd(1.0), loss=loss))(state, jnp.ones((2, 1)))
    np.testing.assert_allclose(float(state.model), -0.6, rtol=2**-10)


def test_global_norm_of_many_bfloat16_arrays():
    """600 arrays of four 0.5: 16.0 in bfloat16, right is 24.49."""
    gradients = [jnp.full(4, 0.5, jnp.bfloat16)] * 600
    norm = jax.jit(accumulation.global_norm)(gradients)
    np.testing.assert_allclose(norm, 600**0.5, rtol=1e-6)
    assert norm.dtype == jnp.float32


def test_clipping_bfloat16_gradients_by_their_norm():
    """256 + 1 is 256 in bfloat16: a norm of 16 instead of 16.5 left a gradient of norm 1.03 after clipping to 1."""
    # Without running means and with a large epsilon, Adam's update is minus the clipped gradient.
    config = training.OptimizerConfig(
        learning_rate=1e4, epsilon=1e4, beta1=0.0, beta2=0.0, weight_decay=0.0, schedule="constant", warmup=0, clip=1.0
    )
    optimizer = training.make_optimizer(config, steps=1)
    gradients = [jnp.ones(256, jnp.bfloat16)] + [jnp.ones(1, jnp.bfloat16)] * 17
    updates, _ = jax.jit(lambda g: optimizer.update(g, optimizer.init(g), g))(gradients)
    assert {u.dtype for u in updates} == {jnp.dtype(jnp.bfloat16)}
    norm = np.sqrt(sum(np.square(np.asarray(u, np.float64)).sum() for u in updates))
    np.testing.assert_allclose(norm, 1.0, rtol=BF16)


@pytest.mark.parametrize("inner", ["sgd", "adamw"])
def test_a_finite_float16_gradient_whose_squares_overflow_is_not_refused(inner):
    config = training.OptimizerConfig(learning_rate=0.5, schedule="constant", warmup=0, clip=None)
    optimizer = {
        "sgd": training.refuse_nonfinite(optax.sgd(2.0**-10)),
        "adamw": training.make_optimizer(config, steps=1),
    }[inner]
    params = jnp.zeros(3, jnp.float16)
    updates, state = jax.jit(lambda g: optimizer.update(g, optimizer.init(params), params))(
        jnp.full(3, 512.0, jnp.float16)
    )
    np.testing.assert_array_equal(updates, np.full(3, -0.5, np.float16))
    assert (int(state.total), updates.dtype) == (0, jnp.float16)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_running_means_of_half_precision_parameters_are_float32(dtype):
    """200 equal gradients: in bfloat16 the mean of squares stops at 0.5; Adam's epsilon is 0 in float16."""
    config = training.OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup=0, clip=None, weight_decay=0.0)
    optimizer = training.make_optimizer(config, steps=200)
    params = {"kernel": jnp.zeros(2, dtype)}
    gradient = {"kernel": jnp.array([1.0, 0.0], dtype)}

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, 200, lambda _, s: optimizer.update(gradient, s, params)[1], state)

    state = run(optimizer.init(params))
    (adam,) = [x for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "nu")) if hasattr(x, "nu")]
    assert {x.dtype for x in (adam.mu["kernel"], adam.nu["kernel"])} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(adam.nu["kernel"], [1 - 0.99**200, 0], rtol=1e-4)
    updates, _ = optimizer.update({"kernel": jnp.zeros(2, dtype)}, state, params)
    assert float(updates["kernel"][1]) == 0
    assert int(state.total) == 0


def test_evaluation_adds_batches_of_bfloat16_sums():
    class Source:
        def evaluation_batches(self, batch_size):
            return iter([jnp.ones((batch_size, 1))] * 1024)

    def evaluate_step(model, batch):
        share = jnp.bfloat16(2.0**-10)
        return training.Losses(objective=share, nats=share, weight=jnp.float32(2.0**-9))

    evaluate = training.make_evaluate(Source(), 4, evaluate_step=evaluate_step)
    assert evaluate(None) == {"loss": 0.5, "tokens": 2.0}


def test_float64_and_float32_stay_as_they_are(x64):
    tree = {"a": jnp.ones(2, jnp.float64), "b": jnp.ones(2, jnp.float32), "n": jnp.ones(2, jnp.int8)}
    assert {name: x.dtype for name, x in accumulation.widen(tree).items()} == {
        name: x.dtype for name, x in tree.items()
    }
    assert accumulation.widen(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    assert accumulation.global_norm(tree["a"]).dtype == jnp.float64
