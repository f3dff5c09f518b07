"""`scores.l2` far away from the origin (pytorch#42479): distances, not squared lengths, decide about the error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import attend, attend_heads, attend_step, cache, masks, normalizers, scores
from tests.support.arrays import difference, normal
from tests.support.tiers import slow

FAR = 2000.0
Q, K, V = (np.asarray(normal(i, 2, n, 4), np.float64) for i, n in ((0, 6), (1, 9), (2, 9)))


def oracle(q, k, v, allowed=True):
    """The formula with distances, in float64."""
    scores = np.where(allowed, -((q[..., :, None, :] - k[..., None, :, :]) ** 2).sum(-1), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def narrow(*arrays):
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_points_far_from_the_origin(implementation):
    q, k, v = narrow(Q + FAR, K + FAR, V)
    exact = [np.asarray(x, np.float64) for x in (q, k, v)]  # what float32 can hold of them
    run = jax.jit(lambda *x: attend(*x, score=scores.l2(), implementation=implementation))
    assert difference(run(q, k, v), oracle(*exact)) < 1e-5
    loss = lambda *x: (run(*x) ** 2).sum()  # noqa: E731
    with jax.enable_x64(True):
        wide = jax.grad(lambda *x: (attend(*x, score=scores.l2()) ** 2).sum(), (0, 1))(*map(jnp.asarray, exact))
    for actual, expected in zip(jax.grad(loss, (0, 1))(q, k, v), wide, strict=True):
        assert difference(actual, expected) < 1e-4


@pytest.mark.parametrize("far", [1e5, *slow(1e3, 1e10)])
@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_a_far_key_changes_no_row_that_does_not_see_it(implementation, far):
    """A centre that follows one far key would take all other keys away from it."""
    q, k, v = narrow(Q, K[:, :6], V[:, :6])
    rule = {"score": scores.l2(), "mask": masks.causal(), "implementation": implementation}
    actual = attend(q, k.at[:, -1].set(far), v, **rule)[:, :-1]
    assert difference(actual, attend(q, k, v, **rule)[:, :-1]) < 2e-6


@pytest.mark.parametrize("mask", [None, masks.causal()])
def test_linear_attention_far_from_the_origin(mask):
    """The sums over keys would keep squared lengths; a step of decoding, whose centre nobody knows, keeps them."""
    q, k, v = narrow(Q + FAR, K[:, :6] + FAR, V[:, :6])
    rule = {"score": scores.l2(0.1), "normalize": normalizers.linear(), "mask": mask}
    actual = attend(q, k, v, **rule, implementation="linear_attention")
    assert difference(actual, attend(q, k, v, **rule, implementation="reference")) < 1e-4
    steps, state = [], None
    for t in range(6):
        near = [x[:, t : t + 1] for x in narrow(Q, K[:, :6], V[:, :6])]
        output, state = attend_step(state, *near, score=scores.l2(0.1), normalize=normalizers.linear())
        steps.append(output)
    near = narrow(Q, K[:, :6], V[:, :6])
    whole = attend(*near, **{**rule, "mask": masks.causal()}, implementation="linear_attention")
    assert difference(jnp.concatenate(steps, axis=-2), whole) < 1e-5


def test_no_score_is_positive():
    q, k = narrow(Q + FAR, K + FAR)
    assert float(scores.l2()(q, k).max()) <= 1e-4


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_padding_and_broken_rows_do_not_move_the_centre(implementation):
    """Empty slots of a cache are zeros; a masked row with NaN must change nothing."""
    k, v = K + FAR, V.copy()
    k[:, 7:], v[:, 7:] = np.nan, np.nan
    q, k, v = narrow(Q + FAR, k, v)
    exact = [np.asarray(x, np.float64) for x in (q, k[:, :7], v[:, :7])]
    actual = attend(q, k, v, score=scores.l2(), mask=masks.lengths(7), implementation=implementation)
    assert difference(actual, oracle(*exact)) < 1e-5
    slots = cache.append(cache.create(64, 2, 4, batch=()), *(jnp.swapaxes(x[:, :7], 0, 1) for x in (k, v)))
    decoded = attend_heads(
        jnp.swapaxes(q, 0, 1),
        slots.key,
        slots.value,
        score=scores.l2(),
        mask=masks.causal(),
        query_positions=jnp.full(6, 7),
        key_positions=slots.positions,
        implementation=implementation,
    )
    assert difference(jnp.swapaxes(decoded, 0, 1), oracle(*exact)) < 1e-5


def test_batch_dimensions_broadcast_without_copies():
    """One query for many keys stays one: the centre is that of all keys that share it."""
    q, k, v = narrow(Q[:1, None] + FAR, K[None].repeat(3, 0) + FAR + np.arange(3)[:, None, None, None], V[None])
    exact = [np.asarray(x, np.float64) for x in (q, k, v)]
    assert difference(attend(q, k, v, score=scores.l2()), oracle(*exact)) < 1e-5
    assert scores.l2().center(q, k)[0].shape == q.shape


def test_grouped_queries():
    grouped = narrow(np.concatenate([Q, Q]) + FAR, K + FAR, V)
    repeated = [np.asarray(x, np.float64) for x in (grouped[0], *(np.repeat(x, 2, 0) for x in grouped[1:]))]
    actual = attend_heads(*(jnp.moveaxis(x, 0, 1) for x in grouped), score=scores.l2())
    assert difference(jnp.moveaxis(actual, 1, 0), oracle(*repeated)) < 1e-5


def test_direct_calls_of_other_ranks():
    q, k = narrow(Q, K)
    for query, key in ((q[0], k), (q, k[0]), (q[0], k[0])):
        distances = ((query[..., :, None, :] - key[..., None, :, :]) ** 2).sum(-1)
        assert difference(scores.l2()(query, key), -distances) < 1e-5


def test_other_normalizers_see_the_same_scores():
    q, k, v = narrow(Q + FAR, K + FAR, V)
    near = [np.asarray(x, np.float64) - FAR for x in (q, k)]
    expected = -((near[0][..., :, None, :] - near[1][..., None, :, :]) ** 2).sum(-1) @ np.asarray(v, np.float64)
    assert difference(attend(q, k, v, score=scores.l2(), normalize=normalizers.linear()), expected) < 1e-3


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_a_broken_key_reaches_only_the_queries_that_see_it(implementation):
    q, k, v = narrow(Q + FAR, K[:, :6] + FAR, V[:, :6])
    run = jax.jit(lambda k: attend(q, k, v, score=scores.l2(), mask=masks.causal(), implementation=implementation))
    broken = run(k.at[:, 4].set(jnp.nan))
    assert np.isnan(broken[:, 4:]).all()
    assert difference(broken[:, :4], run(k)[:, :4]) < 1e-4
