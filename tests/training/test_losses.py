"""Cross-entropy in chunks equals PyTorch's, forward and backward, and never holds all logits at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export

from jax_attention import training
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD, GRADIENT

RNG = np.random.default_rng(0)
B, T, D, V = 3, 5, 4, 7
HIDDEN = RNG.standard_normal((B, T, D)).astype(np.float32)
HEAD = RNG.standard_normal((D, V)).astype(np.float32)
TARGETS = RNG.integers(0, V, (B, T))
WEIGHTS = (RNG.random((B, T)) < 0.6).astype(np.float32)


def losses(hidden, head, weights=WEIGHTS, targets=TARGETS, **options):
    @jax.jit
    def run(hidden, head, weights, targets):
        return training.cross_entropy(lambda h: h @ head, hidden, targets, weights, **options)

    return run(hidden, head, weights, targets)


def torch_objective(hidden, head, label_smoothing, z_loss):
    """Sum over weighted rows, from cross-entropy and logsumexp of PyTorch, and its gradients."""
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
def test_objective_and_gradients_equal_torch_in_any_chunks(smoothing, z, at_once):
    def objective(hidden, head):
        return losses(hidden, head, label_smoothing=smoothing, z_loss=z, logits_at_once=at_once).objective

    value, gradients = jax.jit(jax.value_and_grad(objective, argnums=(0, 1)))(HIDDEN, HEAD)
    expected, *expected_gradients = torch_objective(HIDDEN, HEAD, smoothing, z)
    np.testing.assert_allclose(value, expected, rtol=FORWARD["float32"])
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected_gradient, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


def test_nats_leave_out_smoothing_and_z_loss():
    plain, other = losses(HIDDEN, HEAD), losses(HIDDEN, HEAD, label_smoothing=0.3, z_loss=0.1)
    np.testing.assert_array_equal(plain.nats, other.nats)
    np.testing.assert_array_equal(plain.nats, plain.objective)
    assert float(other.objective) != float(plain.objective)
    assert float(plain.weight) == WEIGHTS.sum()


def test_default_weights_are_one():
    np.testing.assert_array_equal(losses(HIDDEN, HEAD, None).nats, losses(HIDDEN, HEAD, np.ones((B, T))).nats)


@pytest.mark.slow
def test_rows_without_weight_may_hold_anything():
    """NaN and targets out of range at padding change neither the loss nor a gradient."""
    with_nan = HIDDEN.copy()
    with_nan[WEIGHTS == 0] = np.nan
    targets = np.where(WEIGHTS > 0, TARGETS, 10**6)

    def objective(hidden, head):
        return training.cross_entropy(lambda h: h @ head, hidden, targets, WEIGHTS, logits_at_once=4 * V).objective

    np.testing.assert_allclose(objective(with_nan, HEAD), losses(HIDDEN, HEAD).objective, rtol=FORWARD["float32"])
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
    result = losses(HIDDEN.astype(jnp.bfloat16), HEAD.astype(jnp.bfloat16))
    assert result.nats.dtype == jnp.float32


def test_float64_stays_float64(x64):
    result = losses(HIDDEN.astype(np.float64), HEAD.astype(np.float64))
    np.testing.assert_allclose(result.objective, torch_objective(HIDDEN, HEAD, 0.0, 0.0)[0], rtol=FORWARD["float64"])


def test_all_logits_never_exist_at_once():
    """https://github.com/apple/axlearn/issues/1236: 9.6 GB of logits, 313 MB in chunks."""
    rows, size, vocabulary = 4096, 8, 4096
    hidden, head = np.ones((rows, size), np.float32), np.ones((size, vocabulary), np.float32)
    targets = np.zeros(rows, np.int32)

    def temporary_bytes(at_once):
        def objective(hidden, head):
            return training.cross_entropy(lambda h: h @ head, hidden, targets, logits_at_once=at_once).objective

        compiled = jax.jit(jax.grad(objective, argnums=(0, 1))).lower(hidden, head).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(rows * vocabulary) > 4 * rows * vocabulary
    assert temporary_bytes(2**18) < 4 * rows * vocabulary / 8


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


def numpy_losses(logits, targets, weights):
    """Sums of w (lse - z_target) and of |w| in float64; rows of weight 0 are left out."""
    rows = np.asarray(weights).reshape(-1) != 0
    z, targets, weights = (
        np.asarray(logits, np.float64).reshape(-1, V)[rows],
        targets.reshape(-1)[rows],
        weights.reshape(-1)[rows],
    )
    nats = np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), targets]
    return (weights * nats).sum(), np.abs(weights).sum()


def test_negative_weights_push_away_and_count_by_their_size():
    """https://github.com/huggingface/trl/pull/5951: sum w_i nats_i / sum |w_i|.

    Rows of negative weight were left out of the loss, but not of the sum of weights.
    """
    weights = np.where(np.arange(T) % 2 == 0, WEIGHTS, -0.5 * WEIGHTS).astype(np.float32)
    result = losses(HIDDEN, HEAD, weights)
    nats, total = numpy_losses(HIDDEN @ HEAD, TARGETS, weights)
    np.testing.assert_allclose(result.nats, nats, rtol=FORWARD["float32"])
    np.testing.assert_allclose(result.weight, total, rtol=FORWARD["float32"])
    eager = training.cross_entropy(lambda h: h @ HEAD, jnp.asarray(HIDDEN), TARGETS, weights)
    np.testing.assert_allclose(eager, result, rtol=FORWARD["float32"])
    # The gradient of a negative weight is minus that of a positive one.
    gradient = jax.jit(jax.grad(lambda h, w: losses(h, HEAD, w).objective))
    np.testing.assert_array_equal(gradient(HIDDEN, -WEIGHTS), -gradient(HIDDEN, WEIGHTS))


def test_weights_that_cancel_have_a_mean():
    result = losses(HIDDEN[:1, :2], HEAD, np.array([[1.0, -1.0]], np.float32), targets=TARGETS[:1, :2])
    nats, total = numpy_losses((HIDDEN @ HEAD)[:1, :2], TARGETS[:1, :2], np.array([1.0, -1.0]))
    assert (float(result.weight), total) == (2.0, 2.0)
    np.testing.assert_allclose(result.nats, nats, rtol=FORWARD["float32"])


NO_CLASS = [-1, -V, -V - 1, -100, V, 10**6]
"""optax#1185, pytorch/xla#4552: -1 to -V wrapped to a class, and the others made the loss NaN but not the gradient."""


@pytest.mark.parametrize("wrong", NO_CLASS)
def test_a_target_that_is_no_class_is_refused_where_it_is_known(wrong):
    targets = TARGETS.copy()
    targets[1, 2] = wrong
    with pytest.raises(ValueError, match=f"targets: expected classes from 0 to 6, got {wrong} .1 of 15"):
        training.cross_entropy(lambda h: h @ HEAD, HIDDEN, targets)
    with pytest.raises(ValueError, match="targets: expected classes"):
        jax.jit(lambda h: training.cross_entropy(lambda h: h @ HEAD, h, targets))(HIDDEN)


@pytest.mark.parametrize("at_once", [2**20, *slow(2 * V)])
def test_a_traced_target_that_is_no_class_makes_loss_and_gradient_nan(at_once):
    @jax.jit
    @jax.vmap
    def run(targets):
        def objective(hidden):
            return training.cross_entropy(
                lambda h: h @ HEAD, hidden, targets, WEIGHTS, logits_at_once=at_once
            ).objective

        return jax.value_and_grad(objective)(HIDDEN)

    row, column = np.argwhere(WEIGHTS > 0)[0]
    targets = np.repeat(TARGETS[None], len(NO_CLASS), 0)
    targets[:, row, column] = NO_CLASS
    values, gradients = run(targets)
    assert np.isnan(values).all()
    assert np.isnan(gradients[:, row, column]).all()
    # Where the weight is 0, any number will do.
    targets = np.where(WEIGHTS > 0, TARGETS, np.array(NO_CLASS)[:, None, None])
    values, gradients = run(targets)
    np.testing.assert_allclose(values, losses(HIDDEN, HEAD).objective, rtol=FORWARD["float32"])
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("ignored", [-100, *slow(-1, 3, 255)])
def test_ignore_index_equals_that_of_torch(ignored):
    targets = np.where(WEIGHTS > 0, TARGETS, ignored)
    result = losses(HIDDEN, HEAD, None, targets=targets, ignore_index=ignored, label_smoothing=0.1)
    logits = torch.tensor(HIDDEN @ HEAD, dtype=torch.float64).reshape(-1, V)
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor(targets).reshape(-1), ignore_index=ignored, label_smoothing=0.1
    )
    np.testing.assert_allclose(result.objective / result.weight, expected.item(), rtol=FORWARD["float32"])
    eager = training.cross_entropy(lambda h: h @ HEAD, HIDDEN, targets, ignore_index=ignored, label_smoothing=0.1)
    np.testing.assert_allclose(eager, result, rtol=FORWARD["float32"])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32"])
def test_targets_of_any_integer_type(dtype):
    targets = np.where(WEIGHTS > 0, TARGETS, 99).astype(dtype)
    result = losses(HIDDEN, HEAD, None, targets=targets, ignore_index=99)
    np.testing.assert_allclose(result, losses(HIDDEN, HEAD), rtol=FORWARD["float32"])
    assert np.isfinite(losses(HIDDEN, HEAD, None, targets=TARGETS.astype(dtype), ignore_index=-100).nats)


def test_the_number_that_the_error_names_is_ignored():
    """-100 in unsigned integers."""
    targets = np.where(WEIGHTS > 0, TARGETS, 2**32 - 100).astype(np.uint32)
    eager = lambda **options: training.cross_entropy(lambda h: h @ HEAD, HIDDEN, targets, **options)  # noqa: E731
    with pytest.raises(ValueError, match=r"ignore_index=4294967196\."):
        eager()
    np.testing.assert_allclose(eager(ignore_index=2**32 - 100), losses(HIDDEN, HEAD), rtol=FORWARD["float32"])


def test_a_symbolic_number_of_rows_is_exported():
    b, t = export.symbolic_shape("b, t")
    loss = lambda hidden, targets: training.cross_entropy(lambda h: h @ HEAD, hidden, targets)  # noqa: E731
    shapes = jax.ShapeDtypeStruct((b, t, D), jnp.float32), jax.ShapeDtypeStruct((b, t), jnp.int32)
    result = export.export(jax.jit(loss))(*shapes).call(HIDDEN, TARGETS)
    np.testing.assert_allclose(result, loss(HIDDEN, TARGETS), rtol=FORWARD["float32"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: expected 0 <= a < 1"),
        ({"targets": TARGETS[:, 1:]}, "targets: expected"),
    ],
)
def test_wrong_calls(change, message):
    targets = change.pop("targets", TARGETS)
    with pytest.raises(ValueError, match=message):
        training.cross_entropy(lambda h: h @ HEAD, HIDDEN, targets, **change)


def test_targets_must_be_integers():
    with pytest.raises(TypeError, match=r"targets: expected integers, got float32\[3,5\]"):
        training.cross_entropy(lambda h: h @ HEAD, HIDDEN, TARGETS.astype(np.float32))
