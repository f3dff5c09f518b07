"""Training adapters: the base under them is an argument that nobody changes, keeps states for, or saves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_attention import data, models, nn, training
from tests.models.small import filled

CONFIG = models.tiny(vocab_size=19, context=16, width=16, depth=1, num_heads=2)
CORPUS = data.prepare([data.Document("count", "abcdefgh ihgfedcba " * 60)], length=8)
STEPS, RATE, DECAY = 4, 0.1, 0.5


@pytest.fixture(scope="module")
def base():
    return filled(lambda: models.create(CONFIG))


@pytest.fixture(scope="module")
def fitted(base, tmp_path_factory):
    """The end of a run, what its evaluations were given, and its checkpoints."""
    options = {"learning_rate": RATE, "weight_decay": DECAY, "schedule": "constant", "warmup": 0, "clip": None}
    optimizer = training.make_optimizer(training.OptimizerConfig(**options), steps=STEPS)
    state = training.init_state(nn.lora(base, 2, 0), optimizer, rng=jax.random.key(0))
    checkpoints, seen = training.Checkpoints(tmp_path_factory.mktemp("run")), []

    def evaluate(model):
        seen.append(model)
        return {"loss": 1.0}

    limit = jax.config.jax_captured_constants_warn_bytes
    jax.config.update("jax_captured_constants_warn_bytes", 512)  # less than a kernel: a captured base is a warning here
    try:
        done = training.fit(
            state,
            training.make_train_step(optimizer, accumulate=2),
            CORPUS.train,
            training.LoopConfig(steps=STEPS, batch_size=4, evaluate_every=2, checkpoint_every=4),
            evaluate=evaluate,
            checkpoints=checkpoints,
            base=base,
        )
    finally:
        jax.config.update("jax_captured_constants_warn_bytes", limit)
    return done.state, seen, checkpoints


@pytest.mark.slow
def test_a_run_is_a_plain_loop_over_the_adapters(base, fitted):
    """Decay pulls at both factors."""
    adapters, optimizer = nn.lora(base, 2, 0), optax.adamw(RATE, b2=0.99, weight_decay=DECAY)
    state = jax.jit(optimizer.init)(adapters)

    @jax.jit
    def step(adapters, state, base, batch):
        def loss(adapters):
            logits = nn.apply_adapters(base, adapters)(batch.tokens).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()

        updates, state = optimizer.update(jax.grad(loss)(adapters), state, adapters)
        return optax.apply_updates(adapters, updates), state

    for n in range(STEPS):
        adapters, state = step(adapters, state, base, CORPUS.train.batch(0, n, 4))
    for a, b in zip(jax.tree.leaves(fitted[0].model), jax.tree.leaves(adapters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_base_is_neither_changed_nor_saved(base, fitted):
    state, _, checkpoints = fitted
    for a, b in zip(jax.tree.leaves(base), jax.tree.leaves(filled(lambda: models.create(CONFIG))), strict=True):
        np.testing.assert_array_equal(a, b)
    trained = sum(x.size for x in jax.tree.leaves(state.model))
    saved = checkpoints.read(STEPS)["leaves"].values()
    assert 3 * trained <= sum(np.prod(x["stored"]) for x in saved) < 3 * trained + 12


@pytest.mark.slow
def test_evaluations_are_given_the_model_with_its_adapters(base, fitted):
    state, seen, _ = fitted
    assert len(seen) == 2
    tokens = jnp.arange(8)
    expected = nn.apply_adapters(base, state.model)(tokens).logits
    np.testing.assert_allclose(seen[-1](tokens).logits, expected, rtol=1e-6, atol=1e-6)
    assert float(jnp.abs(expected - base(tokens).logits).max()) > 1e-2
