"""Rows that may attend to nothing, and numbers that nobody may see: exact zeros, forward and backward.

The oldest complaints of all: NaN gradients of a masked softmax (jax#17117), one bad row that poisons the batch
(pytorch#41508, open since 2020), an overflowing mask constant (jax#34114), NaN that spreads from padding
(transformers#38690), float16 with a mask (flax#982). Everything here runs under `jax.debug_nans`, op by op, so not even
an intermediate result may be NaN; only where the input itself is NaN is it compiled (and its outputs are watched).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Dropout,
    attend,
    attend_heads,
    attend_with_stats,
    attend_with_stats_heads,
    attention_weights,
    masks,
    mods,
    normalizers,
    scores,
)
from tests.support import cases
from tests.support.tiers import slow, slow_except, slow_except_every
from tests.support.tolerances import GRADIENT

SHAPE = cases.Shape(3, 4)
RULES = cases.named_parts("score", "mod", "normalize")
TELLING = ("score-additive", "mod-relative", "normalize-softmax(sinks)", "normalize-sparsemax")
"""Rules whose derivative at a masked pair is a formula of its own."""
EMPTY_ROW, HIDDEN_COLUMN = 1, 2
WHERE = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]], bool)
"""Query 1 may attend to nothing, nobody may attend to key 2."""


@pytest.fixture(autouse=True)
def no_nan_anywhere():
    with jax.debug_nans(True):
        yield


def with_nan(array) -> jax.Array:
    """To the device; only here may NaN pass."""
    with jax.debug_nans(False):
        return jnp.asarray(array)


def draw(dtype="float32") -> cases.Draw:
    return cases.Draw(np.random.default_rng(0), SHAPE, dtype=dtype)


def poisoned(d: cases.Draw, poison: float, score=None) -> list[jax.Array]:
    """Operands with `poison` where nothing may look: the empty query, the hidden key and its value."""
    q, k, v = (x.array for x in cases.operands(d, score))
    q[EMPTY_ROW] = v[HIDDEN_COLUMN] = poison
    k[EMPTY_ROW if getattr(score, "key_per_query", False) else HIDDEN_COLUMN] = poison
    return [with_nan(x) for x in (q, k, v)]


def everything(operands, **rule) -> dict:
    """Output, weights, statistics, gradients of both, and the gradient of a gradient."""
    tangents = [jnp.asarray(np.cos(1.0 + np.arange(x.size)).reshape(x.shape).astype(x.dtype)) for x in operands]

    def loss(q, k, v):
        found = attend_with_stats(q, k, v, **rule)
        seen = jnp.isfinite(found.logsumexp)
        statistics = jnp.where(seen, found.logsumexp, 0) + jnp.where(seen, found.max_score, 0) + found.entropy
        return jnp.sum(found.output**2) + jnp.sum(jnp.sin(statistics))

    gradient = jax.grad(loss, (0, 1, 2))
    grads, second = jax.jvp(gradient, operands, tangents)
    return {
        **attend_with_stats(*operands, **rule)._asdict(),
        "weights": attention_weights(*operands, **rule),
        "gradients": grads,
        "second": second,
    }


def check_zeros(found: dict) -> None:
    found = jax.tree.map(np.asarray, found)
    assert np.all(found["output"][EMPTY_ROW] == 0)
    assert np.all(found["weights"][EMPTY_ROW] == 0)
    assert np.all(found["weights"][:, HIDDEN_COLUMN] == 0)
    assert found["logsumexp"][EMPTY_ROW] == found["max_score"][EMPTY_ROW] == -np.inf
    assert found["entropy"][EMPTY_ROW] == 0
    for query, _, value in (found["gradients"], found["second"]):
        assert np.all(query[EMPTY_ROW] == 0)
        assert np.all(value[HIDDEN_COLUMN] == 0)
    for array in jax.tree.leaves((found["output"], found["gradients"], found["second"])):
        assert np.all(np.isfinite(array.astype(np.float64)))


@pytest.mark.parametrize(("part", "case"), slow_except(TELLING, RULES))
@pytest.mark.parametrize("poison", [np.nan, *slow(np.inf)])
def test_what_nobody_may_see_changes_nothing(part, case, poison):
    """Every score, mod and normaliser: NaN and infinity give bit for bit what a harmless 1 gives."""
    ours = case.build(draw())[0]
    rule = {"mask": masks.dense(WHERE)} | cases.rule_arguments(part, ours)
    score = ours if part == "score" else None
    clean = everything(poisoned(draw(), 1.0, score), **rule)
    check_zeros(clean)
    with jax.debug_nans(np.isinf(poison)):
        found = everything(poisoned(draw(), poison, score), **rule)
    jax.tree.map(np.testing.assert_array_equal, found, clean)


@pytest.mark.parametrize("case", slow_except_every(4, cases.NORMALIZERS), ids=lambda case: case.name)
def test_scores_that_overflow_where_the_mask_forbids(case):
    """Query 0 times key 2 is infinite, both are in use, but not together."""
    q = jnp.zeros((3, 2)).at[0, 0].set(1e30).at[2, 1].set(1.0)
    k = jnp.zeros((3, 2)).at[2, 0].set(1e30).at[0, 1].set(1.0)
    loss = lambda *x: jnp.sum(attend(*x, mask=masks.causal(), normalize=case.build(draw())[0]) ** 2)  # noqa: E731
    assert jnp.isinf(q @ k.T)[0, 2]
    for array in jax.tree.leaves(jax.value_and_grad(loss, (0, 1, 2))(q, k, jnp.ones((3, 2)))):
        assert jnp.all(jnp.isfinite(array))


BIAS = jnp.where(WHERE, 0.5, -jnp.inf)
ROUTES = {
    "dense": {"mask": masks.dense(WHERE)},
    "lengths": {"mask": masks.lengths(2, jnp.asarray(1))},
    "causal": {"mask": masks.causal(-2)},
    "segments": {"mask": masks.segments(jnp.array([0, 5, 1]), jnp.array([0, 0, 7, 1]))},
    "block_sparse": {"mask": masks.block_sparse(WHERE, 1)},
    "plain": {"mask": lambda q_pos, k_pos: (q_pos != EMPTY_ROW) & (k_pos != HIDDEN_COLUMN)},
    "bias": {"mods": (mods.bias(BIAS),)},
    "plain mod": {"mods": (lambda z, q_pos, k_pos: z + BIAS,)},
    "bias first": {"mods": (mods.bias(BIAS), mods.temperature(2.0), mods.soft_cap(3.0), mods.alibi(0.1))},
    "both": {"mask": masks.causal(1), "mods": (mods.bias(BIAS),)},
}


@pytest.mark.parametrize("name", ROUTES)
def test_every_way_to_forbid(name):
    """Masks of all kinds, and a bias of -inf before and after other mods."""
    check_zeros(everything(poisoned(draw(), 1.0), **ROUTES[name]))


@pytest.mark.parametrize("case", slow_except_every(4, cases.NORMALIZERS, 1), ids=lambda case: case.name)
def test_bias_of_minus_infinity_with_every_normalizer(case):
    check_zeros(everything(poisoned(draw(), 1.0), mods=(mods.bias(BIAS),), normalize=case.build(draw())[0]))


@pytest.mark.slow
def test_parameters_of_mods_behind_a_bias_of_minus_infinity():
    """-inf / temperature has the derivative inf; times the 0 that comes back it would be NaN."""

    def loss(array, temperature, cap, slope):
        rule = (mods.bias(array), mods.temperature(temperature), mods.soft_cap(cap), mods.alibi(slope))
        return jnp.sum(attend(*poisoned(draw(), 1.0), mods=rule) ** 2)

    args = (BIAS, jnp.asarray(2.0), jnp.asarray(3.0), jnp.asarray(0.1))
    bias, *numbers = jax.grad(loss, (0, 1, 2, 3))(*args)
    assert jnp.all(bias[~WHERE] == 0)
    assert all(jnp.isfinite(x) and x != 0 for x in numbers)
    assert jnp.all(jnp.isfinite(jax.hessian(loss, 1)(*args)))


def test_a_bias_that_is_nan_where_the_mask_forbids():
    """A learned table that was never trained there, followed by a mod whose derivative would spread it."""
    f = lambda array: jnp.sum(attend(*poisoned(draw(), 1.0), mask=masks.dense(WHERE), mods=rule(array)) ** 2)  # noqa: E731
    rule = lambda array: (mods.bias(array), mods.soft_cap(2.0))  # noqa: E731
    with jax.debug_nans(False):  # the sum of a score and such a bias is NaN until the mask is applied
        value, gradient = jax.value_and_grad(f)(jnp.where(WHERE, 0.5, jnp.nan))
    clean, expected = jax.value_and_grad(f)(jnp.where(WHERE, 0.5, 0))
    np.testing.assert_array_equal(value, clean)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("dtype", ["float16", *slow("bfloat16", "float64")])
def test_other_dtypes(dtype):
    """No mask constant, so none that overflows: jax#34114, flax#982."""
    with jax.enable_x64(dtype == "float64"):
        check_zeros(everything(poisoned(draw(dtype), np.inf), mask=masks.dense(WHERE)))


@pytest.mark.parametrize("residual", [*slow(False), True])
def test_padding_through_two_layers(residual):
    """NaN in padded tokens: the real ones do not notice through two layers, gradients and a second derivative."""
    real = np.arange(5) < 3
    x = np.asarray(np.random.default_rng(0).normal(size=(5, 4)), np.float32)
    mask = masks.lengths(3, 3) & masks.causal()
    weight = jnp.eye(4) + 0.3

    def loss(x, weight):
        for _ in range(2):
            x = attend(x, x, x, mask=mask, score=scores.general(weight)) + (x if residual else 0)
        return jnp.sum(jnp.where(real[:, None], x, 0) ** 2)

    both = lambda x: (  # noqa: E731
        loss(x, weight),
        jax.grad(loss, (0, 1))(x, weight),
        jax.grad(lambda w: jnp.sum(jax.grad(loss)(x, w) ** 2))(weight),
    )
    clean = jax.jit(both)(np.where(real[:, None], x, np.float32(1)))
    # Compiled: here the padded rows themselves stay NaN in the residual stream, between the layers.
    found = jax.jit(both)(with_nan(np.where(real[:, None], x, np.float32(np.nan))))
    jax.tree.map(np.testing.assert_array_equal, found, clean)
    assert jnp.all(found[1][0][3:] == 0)


def test_one_empty_batch_element_leaves_the_others_alone():
    """pytorch#41508: the gradient of the shared weight was NaN for all."""
    q, k, v = (jnp.stack([x, x + 1]) for x in poisoned(draw(), 1.0))
    q, k = with_nan(np.stack([q[0], np.full_like(q[1], np.nan)])), k.at[1].set(jnp.inf)

    def loss(weight, q, k, v, lengths):
        return jnp.sum(attend(q, k, v, mask=masks.lengths(lengths), score=scores.general(weight)) ** 2)

    alone = jax.grad(loss)(jnp.eye(4), q[0], k[0], v[0], jnp.asarray(3))
    both = jax.grad(loss)(jnp.eye(4), q, k, v, jnp.array([3, 0]))
    np.testing.assert_allclose(both, alone, rtol=1e-6)


def test_heads_with_their_own_masks():
    """A key is hidden only if no head of its group sees it; heads that see nothing give 0."""
    q, k, v = (np.random.default_rng(1).normal(size=(3, n, 4)).astype("float32") for n in (4, 2, 2))
    where = jnp.ones((4, 3, 3), bool).at[0].set(False).at[:, :, 2].set(False).at[3, :, 2].set(True)
    k[2, 0] = np.nan  # hidden from heads 0 and 1; head 3, in the other group, sees its key 2
    q, k, v = (with_nan(x) for x in (q, k, v))
    found = jax.jit(attend_with_stats_heads)(q, k, v, mask=masks.dense(where))
    assert jnp.all(found.output[:, 0] == 0)
    assert jnp.all(found.logsumexp[:, 0] == -jnp.inf)
    assert jnp.all(jnp.isfinite(found.output))
    loss = lambda *x: jnp.sum(attend_heads(*x, mask=masks.dense(where)) ** 2)  # noqa: E731
    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    assert all(jnp.all(jnp.isfinite(x)) for x in grads)
    assert jnp.all(grads[0][:, 0] == 0)
    assert jnp.all(grads[1][2, 0] == 0)
    assert jnp.any(grads[1][2, 1] != 0)


@pytest.mark.parametrize("case", slow_except_every(4, cases.NORMALIZERS), ids=lambda case: case.name)
@pytest.mark.parametrize("rows", [*slow((3, 0), (0, 4)), (3, 4)], ids=["S=0", "T=0", "nothing allowed"])
def test_nothing_at_all(rows, case):
    """No keys, no queries, or no allowed pair."""
    d = cases.Draw(np.random.default_rng(0), cases.Shape(*rows))
    rule = {"normalize": case.build(d)[0], "mask": masks.causal(-9), "dropout": Dropout(jax.random.key(0), 0.5)}
    operands = [x.jax for x in cases.operands(d)]
    found = attend_with_stats(*operands, **rule)
    assert found.output.shape == (rows[0], cases.VALUE_HEAD)
    assert jnp.all(found.output == 0)
    assert jnp.all(found.logsumexp == -jnp.inf)
    assert jnp.all(found.entropy == 0)
    assert attention_weights(*operands, **rule).shape == rows
    gradient = jax.grad(lambda *x: jnp.sum(jnp.cos(attend(*x, **rule))), (0, 1, 2))
    assert all(jnp.all(x == 0) for x in gradient(*operands))


@pytest.mark.parametrize("case", slow_except_every(3, cases.SCORES), ids=lambda case: case.name)
@pytest.mark.parametrize("rows", [(3, 0), (0, 4)], ids=["S=0", "T=0"])
def test_every_score_without_keys_or_queries(rows, case):
    d = cases.Draw(np.random.default_rng(0), cases.Shape(*rows))
    score = case.build(d)[0]
    operands = [x.jax for x in cases.operands(d, score)]
    both = jax.jit(lambda *x: [attend(*x, score=score, mask=mask) for mask in (None, masks.causal())])
    for output in both(*operands):
        assert output.shape == (rows[0], cases.VALUE_HEAD)
        assert np.all(output == 0)


def test_sinks_take_all_weight_of_an_empty_row():
    """A row whose only choice is the sink returns 0, and the sink's gradient stays finite."""
    operands = poisoned(draw(), 1.0)
    loss = lambda sink: jnp.sum(  # noqa: E731
        attend(*operands, mask=masks.dense(WHERE), normalize=normalizers.softmax(sink)) ** 2
    )
    gradient = jax.grad(loss)(jnp.asarray(0.3))
    assert jnp.isfinite(gradient)
    assert gradient < 0


def test_a_sink_of_minus_infinity_is_no_sink():
    """Value, and gradients that are those of the plain softmax, with 0 for the sink."""
    operands = poisoned(draw(), 1.0)

    def gradients(sink):
        loss = lambda *x: jnp.sum(attend(*x[:3], normalize=normalizers.softmax(x[3])) ** 2)  # noqa: E731
        return jax.value_and_grad(loss, (0, 1, 2, 3))(*operands, sink)

    value, (*grads, by_sink) = gradients(jnp.asarray(-jnp.inf))
    plain = jax.value_and_grad(lambda *x: jnp.sum(attend(*x) ** 2), (0, 1, 2))(*operands)
    # Not the same bits: without sinks the derivative is one formula, with them it goes step by step.
    close = partial(np.testing.assert_allclose, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])
    jax.tree.map(close, (value, tuple(grads)), plain)
    assert by_sink == 0
