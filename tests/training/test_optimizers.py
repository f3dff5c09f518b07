"""The optimiser against PyTorch's, the schedules against their formulas, and the guard against bad gradients."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from jax_attention import models, normalizers, training
from tests.models.small import filled
from tests.support.tolerances import FORWARD

CONFIG = training.OptimizerConfig(learning_rate=0.1, warmup=3, beta2=0.95, weight_decay=0.2, clip=0.7)
RNG = np.random.default_rng(0)


def test_ten_steps_equal_torch_adamw_with_clipping_and_warmup():
    initial = {"kernel": RNG.standard_normal((3, 4)).astype(np.float32), "bias": np.ones(4, np.float32)}
    gradients = [
        {name: (scale * RNG.standard_normal(x.shape)).astype(np.float32) for name, x in initial.items()}
        for scale in (0.05, 3.0) * 5
    ]
    optimizer = training.make_optimizer(CONFIG, steps=10)
    params, state = initial, optimizer.init(initial)
    update = jax.jit(optimizer.update)
    torch_params = {name: torch.nn.Parameter(torch.tensor(x)) for name, x in initial.items()}
    adamw = torch.optim.AdamW(
        [
            {"params": [torch_params["kernel"]], "weight_decay": 0.2},
            {"params": [torch_params["bias"]], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    schedule = training.make_schedule(CONFIG, steps=10)
    for step, gradient in enumerate(gradients):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        for group in adamw.param_groups:
            group["lr"] = float(schedule(step))
        for name, x in torch_params.items():
            x.grad = torch.tensor(gradient[name])
        torch.nn.utils.clip_grad_norm_(torch_params.values(), 0.7)
        adamw.step()
    for name, x in torch_params.items():
        np.testing.assert_allclose(params[name], x.detach().numpy(), rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_cosine_follows_its_formula():
    schedule = training.make_schedule(
        training.OptimizerConfig(learning_rate=1e-3, final_rate=1e-4, warmup=100), steps=2000
    )
    for step in (0, 50, 99):
        np.testing.assert_allclose(schedule(step), 1e-3 * (step + 1) / 100, rtol=1e-6)
    for step in (100, 700, 1999, 2000, 5000):
        x = min((step - 100) / 1900, 1)
        np.testing.assert_allclose(schedule(step), 1e-4 + 9e-4 * (1 + math.cos(math.pi * x)) / 2, rtol=1e-5)


def test_wsd_is_flat_and_then_falls_linearly():
    config = training.OptimizerConfig(learning_rate=1.0, final_rate=0.2, schedule="wsd", warmup=10, decay_share=0.25)
    schedule = training.make_schedule(config, steps=100)
    np.testing.assert_allclose([schedule(n) for n in (10, 40, 75)], 1.0, rtol=1e-6)
    np.testing.assert_allclose([schedule(n) for n in (80, 90, 100, 200)], [0.84, 0.52, 0.2, 0.2], rtol=1e-5)


def test_constant_is_constant_after_the_warmup():
    schedule = training.make_schedule(training.OptimizerConfig(schedule="constant", warmup=2), steps=10)
    np.testing.assert_allclose([schedule(n) for n in (0, 1, 2, 9, 99)], [5e-4, 1e-3, 1e-3, 1e-3, 1e-3], rtol=1e-6)


@pytest.mark.parametrize("scan", [pytest.param(False, marks=pytest.mark.slow), True])
def test_weight_decay_changes_matrices_only_also_in_stacked_blocks(scan):
    config = models.tiny(
        vocab_size=11, width=8, num_heads=2, use_bias=True, norm="layer", position="learned", scan=scan, sinks=True
    )
    shapes = jax.eval_shape(lambda: models.TransformerLM(config, rngs=nnx.Rngs(0)))
    # Ones everywhere: a bias that starts at 0 would not change under decay.
    model = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    zeros = jax.tree.map(np.zeros_like, model)
    optimizer = training.make_optimizer(training.OptimizerConfig(schedule="constant", warmup=0), steps=1)
    updates, _ = jax.jit(lambda: optimizer.update(zeros, optimizer.init(model), model))()
    changed = {
        ".".join(str(getattr(e, "name", getattr(e, "key", e))) for e in path)
        for path, x in jax.tree_util.tree_leaves_with_path(updates)
        if np.any(x)
    }
    assert {name.split(".")[-2] for name in changed if "blocks" in name} == {"kernel"}
    assert {name.split(".")[0] for name in changed if "blocks" not in name} == {"embedding", "position"}


def test_weight_decay_does_not_change_the_arrays_of_a_rule():
    config = models.tiny(
        vocab_size=11, width=8, num_heads=2, depth=1, normalize=normalizers.softmax(jnp.ones(2)), train_rule=True
    )
    flags = jax.tree_util.tree_leaves_with_path(training.optimizers.decay_mask(filled(lambda: models.create(config))))
    rule_flags = [flag for path, flag in flags if "rule" in jax.tree_util.keystr(path)]
    assert rule_flags == [False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_gradient_changes_nothing_and_is_counted(bad):
    optimizer = training.make_optimizer(CONFIG, steps=10)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    good = jax.tree.map(jnp.ones_like, params)
    nonfinite = {**good, "bias": jnp.array([1.0, bad])}
    update = jax.jit(optimizer.update)
    _, state = update(good, optimizer.init(params), params)
    updates, after = update(nonfinite, state, params)
    assert all(not np.any(x) for x in jax.tree.leaves(updates))
    for a, b in zip(jax.tree.leaves(after.inner), jax.tree.leaves(state.inner), strict=True):
        np.testing.assert_array_equal(a, b)
    _, again = update(nonfinite, after, params)
    assert (int(again.in_a_row), int(again.total)) == (2, 2)
    _, recovered = update(good, again, params)
    assert (int(recovered.in_a_row), int(recovered.total)) == (0, 2)


FLOAT16 = jnp.ones(3, jnp.float16)
REFUSED = {
    "0 / 0": (optax.adam(1e-3), jnp.zeros(3, jnp.float16), None),
    "an infinite running mean": (optax.adam(1e-3), jnp.full(3, 300, jnp.float16), None),
    "an update beyond float16": (optax.sgd(1e3), jnp.full(3, 300, jnp.float16), None),
    "an infinite loss": (optax.sgd(1e-3), FLOAT16, jnp.inf),
    "a loss of NaN": (optax.sgd(1e-3), FLOAT16, jnp.nan),
}
"""Finite float16 gradients whose step is not finite: the inner transformation, the gradient, the loss."""


@pytest.mark.parametrize("case", REFUSED)
def test_a_finite_gradient_with_a_bad_update_changes_nothing_and_is_counted(case):
    """https://github.com/google-deepmind/optax/issues/1754: Adam divided 0 by 0 in float16: the model became NaN."""
    inner, gradient, loss = REFUSED[case]
    optimizer = training.refuse_nonfinite(inner)
    before = optimizer.init(FLOAT16)
    extra = {} if loss is None else {"value": loss}
    updates, after = jax.jit(lambda: optimizer.update(gradient, before, FLOAT16, **extra))()
    np.testing.assert_array_equal(updates, np.zeros(3))
    assert (int(after.in_a_row), int(after.total)) == (1, 1)
    for a, b in zip(jax.tree.leaves(after.inner), jax.tree.leaves(before.inner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_that_begins_at_infinity_is_not_refused():
    """Such as the smallest loss so far; a finite one that turns infinite is refused above."""
    best = optax.GradientTransformation(lambda p: jnp.float16(jnp.inf), lambda g, s, p=None: (g, s))
    optimizer = training.refuse_nonfinite(best)
    updates, state = optimizer.update(FLOAT16, optimizer.init(FLOAT16), FLOAT16)
    np.testing.assert_array_equal(updates, FLOAT16)
    assert int(state.total) == 0


WRONG = {
    "learning_rate: expected a number > 0": {"learning_rate": 0.0},
    "schedule: expected 'cosine', 'wsd' or 'constant'": {"schedule": "linear"},
    "warmup: expected an int >= 0": {"warmup": -1},
    "decay_share: expected a share": {"schedule": "wsd", "decay_share": 0.0},
    "decay_share: expected None with schedule='cosine'": {"decay_share": 0.5},
    "final_rate: expected None with schedule='constant'": {"schedule": "constant", "final_rate": 0.1},
    "weight_decay: expected a number >= 0": {"weight_decay": -1.0},
    "epsilon: expected a number > 0": {"epsilon": 0.0},
    "clip: expected a norm > 0 or None": {"clip": 0.0},
    "beta2: expected 0 <= beta < 1": {"beta2": 1.0},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_settings(message):
    with pytest.raises(ValueError, match=message):
        training.OptimizerConfig(**WRONG[message])


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup: expected at most the 5 steps of the run, got 100"):
        training.make_schedule(training.OptimizerConfig(warmup=100), steps=5)
