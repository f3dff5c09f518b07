"""Cross-entropy in chunks: PyTorch's numbers, forward and backward, and never all logits at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_attention import training
from tests.support.tolerances import FORWARD, GRADIENT

RNG = np.random.default_rng(0)
B, T, D, V = 3, 5, 4, 7
HIDDEN = RNG.standard_normal((B, T, D)).astype(np.float32)
HEAD = RNG.standard_normal((D, V)).astype(np.float32)
TARGETS = RNG.integers(0, V, (B, T))
WEIGHTS = (RNG.random((B, T)) < 0.6).astype(np.float32)


def losses(hidden, head, weights=WEIGHTS, **options):
    @jax.jit
    def run(hidden, head, weights):
        return training.cross_entropy(lambda h: h @ head, hidden, TARGETS, weights, **options)

    return run(hidden, head, weights)


def by_torch(hidden, head, label_smoothing, z_loss):
    """Sum over weighted rows, from torch's own cross-entropy and logsumexp."""
    hidden, head = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (hidden, head))
    logits = (hidden @ head).reshape(-1, V)
    rows = torch.nn.functional.cross_entropy(
        logits, torch.tensor(TARGETS).reshape(-1), label_smoothing=label_smoothing, reduction="none"
    )
    rows = rows + z_loss * torch.logsumexp(logits, -1) ** 2
    total = (rows * torch.tensor(WEIGHTS, dtype=torch.float64).reshape(-1)).sum()
    total.backward()
    return total.item(), hidden.grad.numpy(), head.grad.numpy()


CHUNKS = [
    pytest.param(*kind, at_once, marks=() if i == j else pytest.mark.slow)
    for i, kind in enumerate(((0.0, 0.0), (0.1, 0.0), (0.1, 1e-2)))
    for j, at_once in enumerate((2**20, V, 4 * V))
]


@pytest.mark.parametrize(("smoothing", "z", "at_once"), CHUNKS)
def test_objective_and_gradients_are_torchs_in_any_chunks(smoothing, z, at_once):
    def objective(hidden, head):
        return losses(hidden, head, label_smoothing=smoothing, z_loss=z, logits_at_once=at_once).objective

    value, gradients = jax.jit(jax.value_and_grad(objective, argnums=(0, 1)))(HIDDEN, HEAD)
    expected, *expected_gradients = by_torch(HIDDEN, HEAD, smoothing, z)
    np.testing.assert_allclose(value, expected, rtol=FORWARD["float32"])
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


def test_nats_leave_out_smoothing_and_z_loss():
    plain, other = losses(HIDDEN, HEAD), losses(HIDDEN, HEAD, label_smoothing=0.3, z_loss=0.1)
    np.testing.assert_array_equal(plain.nats, other.nats)
    np.testing.assert_array_equal(plain.nats, plain.objective)
    assert float(other.objective) != float(plain.objective)
    assert float(plain.weight) == WEIGHTS.sum()


def test_weights_that_are_left_out_are_one():
    np.testing.assert_array_equal(losses(HIDDEN, HEAD, None).nats, losses(HIDDEN, HEAD, np.ones((B, T))).nats)


@pytest.mark.slow
def test_rows_without_weight_may_hold_anything():
    """NaN and wild targets in padding: neither the loss nor a gradient notices."""
    wild = HIDDEN.copy()
    wild[WEIGHTS == 0] = np.nan
    targets = np.where(WEIGHTS > 0, TARGETS, 10**6)

    def objective(hidden, head):
        return training.cross_entropy(lambda h: h @ head, hidden, targets, WEIGHTS, logits_at_once=4 * V).objective

    np.testing.assert_allclose(objective(wild, HEAD), losses(HIDDEN, HEAD).objective, rtol=FORWARD["float32"])
    gradient = jax.grad(lambda head: objective(jnp.where(WEIGHTS[..., None] > 0, HIDDEN, 3.0), head))(HEAD)
    expected = jax.grad(lambda head: losses(HIDDEN, head).objective)(HEAD)
    np.testing.assert_allclose(gradient, expected, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


def test_all_weights_zero_is_zero_with_gradient_zero():
    value, gradient = jax.jit(jax.value_and_grad(lambda h: losses(h, HEAD, np.zeros((B, T))).objective))(HIDDEN)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(HIDDEN))


def test_large_logits_do_not_overflow():
    assert np.isfinite(losses(1e4 * HIDDEN, HEAD).nats)


def test_half_precision_is_summed_in_float32():
    found = losses(HIDDEN.astype(jnp.bfloat16), HEAD.astype(jnp.bfloat16))
    assert found.nats.dtype == jnp.float32


def test_float64_stays_float64(x64):
    found = losses(HIDDEN.astype(np.float64), HEAD.astype(np.float64))
    np.testing.assert_allclose(found.objective, by_torch(HIDDEN, HEAD, 0.0, 0.0)[0], rtol=FORWARD["float64"])


def test_logits_never_exist_at_once():
    """https://github.com/apple/axlearn/issues/1236: 9.6 GB of logits, 313 MB in chunks."""
    rows, size, vocabulary = 4096, 8, 4096
    hidden, head = np.ones((rows, size), np.float32), np.ones((size, vocabulary), np.float32)
    targets = np.zeros(rows, np.int32)

    def temporary(at_once):
        def objective(hidden, head):
            return training.cross_entropy(lambda h: h @ head, hidden, targets, logits_at_once=at_once).objective

        compiled = jax.jit(jax.grad(objective, argnums=(0, 1))).lower(hidden, head).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(rows * vocabulary) > 4 * rows * vocabulary
    assert temporary(2**18) < 4 * rows * vocabulary / 8


def test_forward_mode_and_second_order():
    direction = RNG.standard_normal(HIDDEN.shape).astype(np.float32)

    def objective(h):
        return losses(h, HEAD, label_smoothing=0.1, z_loss=0.01, logits_at_once=4 * V).objective

    @jax.jit
    def run(hidden):
        _, forward = jax.jvp(objective, (hidden,), (direction,))
        return forward, *jax.jvp(jax.grad(objective), (hidden,), (direction,))

    forward, gradient, second = map(np.asarray, run(HIDDEN))
    np.testing.assert_allclose(forward, np.vdot(gradient, direction), rtol=1e-4)
    assert np.isfinite(second).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected 0 <= a < 1"),
        ({"targets": TARGETS[:, 1:]}, "targets: expected"),
    ],
)
def test_wrong_calls(change, said):
    targets = change.pop("targets", TARGETS)
    with pytest.raises(ValueError, match=said):
        training.cross_entropy(lambda h: h @ HEAD, HIDDEN, targets, **change)
