"""Empty rows, and numbers at forbidden pairs: exact zeros, forward and backward.

These are the oldest complaints: NaN gradients of a masked softmax (jax#17117), one bad row that poisons the batch
(pytorch#41508, open since 2020), an overflowing mask constant (jax#34114), NaN that spreads from padding
(transformers#38690), float16 with a mask (flax#982). All tests run under `jax.debug_nans`, op by op, so no intermediate
result may be NaN. Only tests with NaN in their inputs are compiled; there `debug_nans` checks the outputs.
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
SPECIAL_DERIVATIVES = ("score-additive", "mod-relative", "normalize-softmax(sinks)", "normalize-sparsemax")
"""Rules with a special formula for the derivative at a masked pair."""
EMPTY_ROW, HIDDEN_COLUMN = 1, 2
WHERE = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1]], bool)
"""A mask in which query 1 has no keys and key 2 has no queries."""


@pytest.fixture(autouse=True)
def no_nan_anywhere():
    with jax.debug_nans(True):
        yield


def with_nan(array) -> jax.Array:
    """Copy an array that contains NaN to the device, without the check of `debug_nans`."""
    with jax.debug_nans(False):
        return jnp.asarray(array)


def draw(dtype="float32") -> cases.Draw:
    return cases.Draw(np.random.default_rng(0), SHAPE, dtype=dtype)


def poisoned_operands(d: cases.Draw, poison: float, score=None) -> list[jax.Array]:
    """Operands with `poison` in the query of the empty row, in the hidden key and in its value."""
    q, k, v = (x.array for x in cases.operands(d, score))
    q[EMPTY_ROW] = v[HIDDEN_COLUMN] = poison
    k[EMPTY_ROW if getattr(score, "key_per_query", False) else HIDDEN_COLUMN] = poison
    return [with_nan(x) for x in (q, k, v)]


def all_results(operands, **rule) -> dict:
    """Output, weights, statistics, gradients of both, and the gradient of a gradient."""
    tangents = [jnp.asarray(np.cos(1.0 + np.arange(x.size)).reshape(x.shape).astype(x.dtype)) for x in operands]

    def loss(q, k, v):
        output, logsumexp, max_score, entropy = attend_with_stats(q, k, v, **rule)
        has_keys = jnp.isfinite(logsumexp)
        statistics = jnp.where(has_keys, logsumexp, 0) + jnp.where(has_keys, max_score, 0) + entropy
        return jnp.sum(output**2) + jnp.sum(jnp.sin(statistics))

    gradient = jax.grad(loss, (0, 1, 2))
    grads, second = jax.jvp(gradient, operands, tangents)
    return {
        **attend_with_stats(*operands, **rule)._asdict(),
        "weights": attention_weights(*operands, **rule),
        "gradients": grads,
        "second": second,
    }


def check_zeros(actual: dict) -> None:
    actual = jax.tree.map(np.asarray, actual)
    assert np.all(actual["output"][EMPTY_ROW] == 0)
    assert np.all(actual["weights"][EMPTY_ROW] == 0)
    assert np.all(actual["weights"][:, HIDDEN_COLUMN] == 0)
    assert actual["logsumexp"][EMPTY_ROW] == actual["max_score"][EMPTY_ROW] == -np.inf
    assert actual["entropy"][EMPTY_ROW] == 0
    for query, _, value in (actual["gradients"], actual["second"]):
        assert np.all(query[EMPTY_ROW] == 0)
        assert np.all(value[HIDDEN_COLUMN] == 0)
    for array in jax.tree.leaves((actual["output"], actual["gradients"], actual["second"])):
        assert np.all(np.isfinite(array.astype(np.float64)))


@pytest.mark.parametrize(("part", "case"), slow_except(SPECIAL_DERIVATIVES, RULES))
@pytest.mark.parametrize("poison", [np.nan, *slow(np.inf)])
def test_hidden_numbers_change_nothing(part, case, poison):
    """NaN and infinity give bit for bit the results of a harmless 1, for every score, mod and normalizer."""
    choice = case.build(draw())[0]
    rule = {"mask": masks.dense(WHERE)} | cases.rule_arguments(part, choice)
    score = choice if part == "score" else None
    clean = all_results(poisoned_operands(draw(), 1.0, score), **rule)
    check_zeros(clean)
    with jax.debug_nans(np.isinf(poison)):
        actual = all_results(poisoned_operands(draw(), poison, score), **rule)
    jax.tree.map(np.testing.assert_array_equal, actual, clean)


@pytest.mark.parametrize("case", slow_except_every(4, cases.NORMALIZERS), ids=lambda case: case.name)
def test_scores_that_overflow_where_the_mask_forbids(case):
    """Query 0 times key 2 is infinite; both are in use, but not together."""
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
    """All masks, and a bias of -inf before and after other mods."""
    check_zeros(all_results(poisoned_operands(draw(), 1.0), **ROUTES[name]))


@pytest.mark.parametrize("case", slow_except_every(4, cases.NORMALIZERS, 1), ids=lambda case: case.name)
def test_bias_of_minus_infinity_with_every_normalizer(case):
    check_zeros(all_results(poisoned_operands(draw(), 1.0), mods=(mods.bias(BIAS),), normalize=case.build(draw())[0]))


@pytest.mark.slow
def test_parameters_of_mods_after_a_bias_of_minus_infinity():
    """-inf / temperature has the derivative inf, and inf times the cotangent 0 would be NaN."""

    def loss(array, temperature, cap, slope):
        rule = (mods.bias(array), mods.temperature(temperature), mods.soft_cap(cap), mods.alibi(slope))
        return jnp.sum(attend(*poisoned_operands(draw(), 1.0), mods=rule) ** 2)

    args = (BIAS, jnp.asarray(2.0), jnp.asarray(3.0), jnp.asarray(0.1))
    bias, *numbers = jax.grad(loss, (0, 1, 2, 3))(*args)
    assert jnp.all(bias[~WHERE] == 0)
    assert all(jnp.isfinite(x) and x != 0 for x in numbers)
    assert jnp.all(jnp.isfinite(jax.hessian(loss, 1)(*args)))


def test_a_bias_that_is_nan_where_the_mask_forbids():
    """The NaN stands for table entries that were never trained; the derivative of the next mod would spread them."""
    f = lambda array: jnp.sum(attend(*poisoned_operands(draw(), 1.0), mask=masks.dense(WHERE), mods=rule(array)) ** 2)  # noqa: E731
    rule = lambda array: (mods.bias(array), mods.soft_cap(2.0))  # noqa: E731
    with jax.debug_nans(False):  # the sum of a score and such a bias is NaN until the mask is applied
        value, gradient = jax.value_and_grad(f)(jnp.where(WHERE, 0.5, jnp.nan))
    clean, expected = jax.value_and_grad(f)(jnp.where(WHERE, 0.5, 0))
    np.testing.assert_array_equal(value, clean)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("dtype", ["float16", *slow("bfloat16", "float64")])
def test_other_dtypes(dtype):
    """Without a mask constant none overflows: jax#34114, flax#982."""
    with jax.enable_x64(dtype == "float64"):
        check_zeros(all_results(poisoned_operands(draw(dtype), np.inf), mask=masks.dense(WHERE)))


@pytest.mark.parametrize("residual", [*slow(False), True])
def test_padding_through_two_layers(residual):
    """NaN in padding does not reach the other tokens, in two layers, their gradients and a second derivative."""
    real = np.arange(5) < 3
    x = np.asarray(np.random.default_rng(0).normal(size=(5, 4)), np.float32)
    mask = masks.lengths(3, 3) & masks.causal()
    weight = jnp.eye(4) + 0.3

    def loss(x, weight):
        for _ in range(2):
            x = attend(x, x, x, mask=mask, score=scores.general(weight)) + (x if residual else 0)
        return jnp.sum(jnp.where(real[:, None], x, 0) ** 2)

    results = lambda x: (  # noqa: E731
        loss(x, weight),
        jax.grad(loss, (0, 1))(x, weight),
        jax.grad(lambda w: jnp.sum(jax.grad(loss)(x, w) ** 2))(weight),
    )
    clean = jax.jit(results)(np.where(real[:, None], x, np.float32(1)))
    # Compiled, because the padded rows stay NaN in the residual stream between the layers.
    actual = jax.jit(results)(with_nan(np.where(real[:, None], x, np.float32(np.nan))))
    jax.tree.map(np.testing.assert_array_equal, actual, clean)
    assert jnp.all(actual[1][0][3:] == 0)


def test_one_empty_batch_element_leaves_the_others_alone():
    """The gradient of the shared weight was NaN for the whole batch in pytorch#41508."""
    q, k, v = (jnp.stack([x, x + 1]) for x in poisoned_operands(draw(), 1.0))
    q, k = with_nan(np.stack([q[0], np.full_like(q[1], np.nan)])), k.at[1].set(jnp.inf)

    def loss(weight, q, k, v, lengths):
        return jnp.sum(attend(q, k, v, mask=masks.lengths(lengths), score=scores.general(weight)) ** 2)

    single = jax.grad(loss)(jnp.eye(4), q[0], k[0], v[0], jnp.asarray(3))
    results = jax.grad(loss)(jnp.eye(4), q, k, v, jnp.array([3, 0]))
    np.testing.assert_allclose(results, single, rtol=1e-6)


def test_heads_with_different_masks():
    """A key is hidden only if no head of its group may attend to it; heads without any key give 0."""
    q, k, v = (np.random.default_rng(1).normal(size=(3, n, 4)).astype("float32") for n in (4, 2, 2))
    where = jnp.ones((4, 3, 3), bool).at[0].set(False).at[:, :, 2].set(False).at[3, :, 2].set(True)
    k[2, 0] = np.nan  # hidden from heads 0 and 1; head 3, in the other group, sees its key 2
    q, k, v = (with_nan(x) for x in (q, k, v))
    actual = jax.jit(attend_with_stats_heads)(q, k, v, mask=masks.dense(where))
    assert jnp.all(actual.output[:, 0] == 0)
    assert jnp.all(actual.logsumexp[:, 0] == -jnp.inf)
    assert jnp.all(jnp.isfinite(actual.output))
    loss = lambda *x: jnp.sum(attend_heads(*x, mask=masks.dense(where)) ** 2)  # noqa: E731
    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)
    assert all(jnp.all(jnp.isfinite(x)) for x in grads)
    assert jnp.all(grads[0][:, 0] == 0)
    assert jnp.all(grads[1][2, 0] == 0)
    assert jnp.any(grads[1][2, 1] != 0)


@pytest.mark.parametrize("case", slow_except_every(4, cases.NORMALIZERS), ids=lambda case: case.name)
@pytest.mark.parametrize("rows", [*slow((3, 0), (0, 4)), (3, 4)], ids=["S=0", "T=0", "nothing allowed"])
def test_no_keys_no_queries_or_no_allowed_pair(rows, case):
    d = cases.Draw(np.random.default_rng(0), cases.Shape(*rows))
    rule = {"normalize": case.build(d)[0], "mask": masks.causal(-9), "dropout": Dropout(jax.random.key(0), 0.5)}
    operands = [x.jax for x in cases.operands(d)]
    actual = attend_with_stats(*operands, **rule)
    assert actual.output.shape == (rows[0], cases.VALUE_HEAD)
    assert jnp.all(actual.output == 0)
    assert jnp.all(actual.logsumexp == -jnp.inf)
    assert jnp.all(actual.entropy == 0)
    assert attention_weights(*operands, **rule).shape == rows
    gradient = jax.grad(lambda *x: jnp.sum(jnp.cos(attend(*x, **rule))), (0, 1, 2))
    assert all(jnp.all(x == 0) for x in gradient(*operands))


@pytest.mark.parametrize("case", slow_except_every(3, cases.SCORES), ids=lambda case: case.name)
@pytest.mark.parametrize("rows", [(3, 0), (0, 4)], ids=["S=0", "T=0"])
def test_every_score_without_keys_or_queries(rows, case):
    d = cases.Draw(np.random.default_rng(0), cases.Shape(*rows))
    score = case.build(d)[0]
    operands = [x.jax for x in cases.operands(d, score)]
    results = jax.jit(lambda *x: [attend(*x, score=score, mask=mask) for mask in (None, masks.causal())])
    for output in results(*operands):
        assert output.shape == (rows[0], cases.VALUE_HEAD)
        assert np.all(output == 0)


def test_sinks_take_all_weight_of_an_empty_row():
    """A row that can attend only to the sink returns 0, and the gradient of the sink is finite."""
    operands = poisoned_operands(draw(), 1.0)
    loss = lambda sink: jnp.sum(  # noqa: E731
        attend(*operands, mask=masks.dense(WHERE), normalize=normalizers.softmax(sink)) ** 2
    )
    gradient = jax.grad(loss)(jnp.asarray(0.3))
    assert jnp.isfinite(gradient)
    assert gradient < 0


def test_a_sink_of_minus_infinity_is_no_sink():
    """Loss and gradients equal those of softmax without a sink, and the gradient of the sink is 0."""
    operands = poisoned_operands(draw(), 1.0)

    def gradients(sink):
        loss = lambda *x: jnp.sum(attend(*x[:3], normalize=normalizers.softmax(x[3])) ** 2)  # noqa: E731
        return jax.value_and_grad(loss, (0, 1, 2, 3))(*operands, sink)

    value, (*grads, by_sink) = gradients(jnp.asarray(-jnp.inf))
    plain = jax.value_and_grad(lambda *x: jnp.sum(attend(*x) ** 2), (0, 1, 2))(*operands)
    # Not bit for bit: without sinks the derivative is one formula, with sinks it is that of each step.
    close = partial(np.testing.assert_allclose, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])
    jax.tree.map(close, (value, tuple(grads)), plain)
    assert by_sink == 0
