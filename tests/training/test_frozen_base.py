"""Training of adapters: their frozen base is never changed, has no optimiser state, and is not saved."""

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
def trained_run(base, tmp_path_factory):
    """The final state of a run, the models that were evaluated, and the checkpoints."""
    options = {"learning_rate": RATE, "weight_decay": DECAY, "schedule": "constant", "warmup": 0, "clip": None}
    optimizer = training.make_optimizer(training.OptimizerConfig(**options), steps=STEPS)
    state = training.init_state(nn.lora(base, 2, 0), optimizer, rng=jax.random.key(0))
    checkpoints, evaluated = training.Checkpoints(tmp_path_factory.mktemp("run")), []

    def evaluate(model):
        evaluated.append(model)
        return {"loss": 1.0}

    limit = jax.config.jax_captured_constants_warn_bytes
    jax.config.update(
        "jax_captured_constants_warn_bytes", 512
    )  # less than a kernel: capturing the base as a constant raises here
    try:
        result = training.fit(
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
    return result.state, evaluated, checkpoints


@pytest.mark.slow
def test_a_run_equals_a_plain_loop_over_the_adapters(base, trained_run):
    """Weight decay applies to both factors of an adapter."""
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
    for a, b in zip(jax.tree.leaves(trained_run[0].model), jax.tree.leaves(adapters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_base_is_neither_changed_nor_saved(base, trained_run):
    state, _, checkpoints = trained_run
    for a, b in zip(jax.tree.leaves(base), jax.tree.leaves(filled(lambda: models.create(CONFIG))), strict=True):
        np.testing.assert_array_equal(a, b)
    adapter_size = sum(x.size for x in jax.tree.leaves(state.model))
    saved = checkpoints.read(STEPS)["leaves"].values()
    assert 3 * adapter_size <= sum(np.prod(x["stored"]) for x in saved) < 3 * adapter_size + 12


@pytest.mark.slow
def test_evaluations_get_the_model_with_its_adapters(base, trained_run):
    state, evaluated, _ = trained_run
    assert len(evaluated) == 2
    tokens = jnp.arange(8)
    expected = nn.apply_adapters(base, state.model)(tokens).logits
    np.testing.assert_allclose(evaluated[-1](tokens).logits, expected, rtol=1e-6, atol=1e-6)
    assert float(jnp.abs(expected - base(tokens).logits).max()) > 1e-2
