"""Exponential features under `proportional`, far beyond the range of exp: google-research#753, performer-pytorch#36.

Rows of `random_features` were exactly 0 (9 of 128 queries of standard deviation 5, all of them at 8), and rows of
"hedgehog" NaN for entries of 45. A factor of the query cancels in the quotient, and keys are summed relative to a
running maximum. The oracle computes logarithms in NumPy, in float64.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jax_attention import (
    Blockwise,
    FeatureState,
    LinearAttention,
    attend,
    attend_step,
    attend_with_stats,
    attention_weights,
    masks,
    normalizers,
    scores,
)
from jax_attention.testing.jaxprs import equations
from tests.support.arrays import difference, normal
from tests.support.derivatives import check_memory_is_linear, derivatives_of
from tests.support.tiers import slow, slow_except, slow_except_every
from tests.support.tolerances import FORWARD, of_exponentials

T, H, E, F = 13, 4, 3, 6
DIRECTIONS = np.random.default_rng(0).normal(size=(F, H))
PROPORTIONAL = normalizers.proportional()
IMPLEMENTATIONS = ("reference", Blockwise(tile=(4, 3)), LinearAttention(chunk=4))
CAUSAL = np.tri(T, dtype=bool)
VALUE = normal(3, T, E, dtype="float32")


def score_of(name: str) -> scores.Score:
    return scores.features(name) if name == "hedgehog" else scores.random_features(jnp.asarray(DIRECTIONS, "float32"))


def logarithms(name: str, x: np.ndarray, directions: np.ndarray = DIRECTIONS) -> np.ndarray:
    """Logarithms of the features of each row, `[T, F]`."""
    if name == "hedgehog":
        return np.concatenate([x, -x], axis=-1)
    count, size = directions.shape
    square = np.sum(x**2, axis=-1, keepdims=True)
    return x @ directions.T / size**0.25 - square / (2 * size**0.5) - 0.5 * np.log(count)


def expected(name: str, q, k, v, where=CAUSAL, eps: float = 0.0) -> np.ndarray:
    """Outputs in float64: the logarithm of every product of two features, then a softmax over keys."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    directions = np.asarray(DIRECTIONS, "float32").astype(np.float64)  # as the score has them
    logs = logarithms(name, q, directions)[:, None] + logarithms(name, k, directions)[None]
    score = np.where(where, np.logaddexp.reduce(logs, axis=-1), -np.inf)
    log_eps = np.log(eps) if eps else -np.inf
    largest = np.maximum(score.max(axis=-1, keepdims=True), log_eps)
    weights = np.exp(score - largest)
    return weights @ v / (weights.sum(axis=-1, keepdims=True) + np.exp(log_eps - largest))


def rows(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Queries and keys whose features are beyond float32, by name."""
    q, k = (np.asarray(normal(n, T, H, dtype="float32")) for n in (1, 2))
    # Rows with far larger features: in the middle of one chunk, at the end of another, and as the last of the third.
    # Those of `random_features` are the larger the shorter the key.
    later = (8 if name == "random_features" else 2) * k
    later[[5, 6, 11]] *= 1 / 40 if name == "random_features" else 40
    cases = {"std 5": (5 * q, 5 * k), "std 8": (8 * q, 8 * k), "larger keys later": (8 * q, later)}
    # No feature is large for both: the product of features, each relative to its row, underflows.
    cases["far apart"] = (200 * q, 200 * k)
    if name == "hedgehog":
        cases["45"] = 45 * np.sign(q), 45 * np.sign(k)
        cases["45 and -45"] = np.full_like(q, 45), np.full_like(k, -45)
    return cases


CASES = [
    pytest.param(name, case, id=f"{name}, {case}") for name in ("random_features", "hedgehog") for case in rows(name)
]


@pytest.mark.parametrize(("name", "case"), slow_except(("random_features, far apart",), CASES))
def test_no_output_is_lost(name, case):
    """All forms equal the oracle, with a causal mask and without, and stay so in bfloat16."""
    (q, k), v, score = rows(name)[case], normal(3, T, E, dtype="float32"), score_of(name)
    rule = {"score": score, "normalize": PROPORTIONAL}
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]

    @jax.jit
    def outputs(q, k, v):
        found = []
        for mask in (masks.causal(), None):
            run = partial(attend, mask=mask, **rule)
            forms = [run(q, k, v, implementation=how) for how in IMPLEMENTATIONS]
            weights = attention_weights(q, k, v, mask=mask, **rule)
            with_stats = attend_with_stats(q, k, v, mask=mask, **rule)
            found.append(([*forms, weights.astype(v.dtype) @ v, with_stats.output], with_stats[1:]))
        return found, stepwise(q, k, v, (4, 1, 0, 8), **rule)[0]

    size = max(np.abs(logarithms(name, x)).max() for x in (q, k))
    for operands, dtype in (((q, k, jnp.asarray(v)), "float32"), (narrow, "bfloat16")):
        (causal, whole), stepped = outputs(*operands)
        tolerance = of_exponentials(size) + (0 if dtype == "float32" else 2 * float(jnp.finfo(dtype).eps))
        for (forms, statistics), where in ((causal, CAUSAL), (whole, np.ones_like(CAUSAL))):
            answer = expected(name, *operands, where)
            forms = [*forms, stepped] if where is CAUSAL else forms
            assert [difference(form, answer) <= tolerance for form in forms] == [True] * len(forms)
            assert all(np.isfinite(x).all() for x in statistics)


def stepwise(q, k, v, sizes: tuple[int, ...], **rule) -> tuple[jax.Array, FeatureState]:
    """Output and last state of `attend_step` over blocks of these sizes."""
    state, outputs = None, []
    for block in zip(*(jnp.split(x, np.cumsum(sizes)[:-1]) for x in (q, k, v)), strict=True):
        output, state = attend_step(state, *block, **rule)
        outputs.append(output)
    return jnp.concatenate(outputs), state


def same_length(seed: int, name: str) -> np.ndarray:
    """Rows whose features are all above e^800 or all below e^-800, in ratios of order one."""
    noise = np.asarray(normal(seed, 5, H, dtype="float64"))
    if name == "hedgehog":
        return 800 + 0.3 * noise
    direction = np.ones(H) + 0.01 * noise
    return 60 * direction / np.linalg.norm(direction, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "how", ["reference", *slow(LinearAttention(chunk=2), Blockwise(tile=(4, 3)), "attend_step")], ids=str
)
@pytest.mark.parametrize("name", ["random_features", *slow("hedgehog")])
def test_derivatives_where_no_feature_is_a_number(name, how, x64):
    """Order 2 in both modes, where every feature is 0 or inf in float64."""
    operands = *(jnp.asarray(same_length(seed, name)) for seed in (4, 5)), normal(6, 5, E)
    rule = {"normalize": PROPORTIONAL}
    arrays = operands if name == "hedgehog" else (*operands, jnp.asarray(DIRECTIONS))

    @jax.jit
    def run(q, k, v, *directions):
        score = scores.random_features(*directions) if directions else scores.features(name)
        if how == "attend_step":
            return stepwise(q, k, v, (2, 1, 2), score=score, **rule)[0]
        return attend(q, k, v, score=score, mask=masks.causal(), implementation=how, **rule)

    assert np.all(np.abs(logarithms(name, np.asarray(operands[0]))) > 750)
    assert np.all(np.asarray(run(*arrays)) != 0)
    check_grads(run, arrays, order=2, modes=("fwd", "rev"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "case"), slow_except(("random_features, far apart",), CASES))
def test_gradients_beyond_exp_are_those_of_float64(name, case):
    """Gradient and Hessian product in float32 are finite, and near those of the dense formula in float64."""
    (q, k), v = rows(name)[case], np.asarray(normal(3, T, E, dtype="float32"))

    def derivatives(how, dtype):
        score = jax.tree.map(lambda x: x.astype(dtype), score_of(name))
        loss = lambda *x: jnp.sum(  # noqa: E731
            jnp.sin(attend(*x, score=score, normalize=PROPORTIONAL, mask=masks.causal(), implementation=how))
        )
        gradient = jax.grad(loss, (0, 1, 2))
        operands = tuple(jnp.asarray(x, dtype) for x in (q, k, v))
        tangents = tuple(jnp.cos(x) for x in operands)
        return jax.jit(lambda *x: jax.jvp(gradient, x, tangents))(*operands)

    with jax.enable_x64(True):
        exact = jax.tree.map(np.asarray, derivatives("reference", "float64"))
    size = max(np.abs(logarithms(name, x)).max() for x in (q, k))
    slope = (
        1 if name == "hedgehog" else max(np.abs(x).max() for x in (q, k))
    )  # of a logarithm: terms are so much larger
    for how in IMPLEMENTATIONS:
        for x, y in zip(jax.tree.leaves(derivatives(how, "float32")), jax.tree.leaves(exact), strict=True):
            assert difference(x, y) <= of_exponentials(size) * (slope + np.abs(y).max()), how


EPS = [("random_features", 0.1, 1), ("random_features", 1e-30, 6), ("hedgehog", 100.0, 1), ("hedgehog", 1e55, 35)]


@pytest.mark.parametrize(("name", "eps", "scale"), slow_except_every(3, [pytest.param(*x) for x in EPS]))
def test_eps_is_added_to_the_sum_itself(name, eps, scale):
    """The factors do not cancel there: they are put back, also where eps and all sums are beyond float32."""
    q, k, v = (normal(n, T, size, dtype="float32") for n, size in ((1, H), (2, H), (3, E)))
    q, k = scale * q, scale * k
    rule = {"score": score_of(name), "normalize": normalizers.proportional(eps=eps)}

    @jax.jit
    def outputs(q, k, v):
        forms = [attend(q, k, v, mask=masks.causal(), implementation=how, **rule) for how in IMPLEMENTATIONS]
        return [*forms, stepwise(q, k, v, (4, 1, 0, 8), **rule)[0]]

    answer = expected(name, q, k, v, eps=eps)
    tolerance = of_exponentials(max(np.abs(logarithms(name, np.asarray(x))).max() for x in (q, k)))
    assert [difference(form, answer) <= tolerance for form in outputs(q, k, v)] == [True] * 4
    assert difference(answer, expected(name, q, k, v)) > 0.1
    assert np.abs(answer).max() > 0.1


def test_other_normalizers_and_mods_see_the_score_itself():
    """Under `linear` a factor does not cancel, and a mod is a function of the score."""
    q, k, v = (normal(n, T, size, dtype="float32") for n, size in ((1, H), (2, H), (3, E)))
    logs = logarithms("hedgehog", np.asarray(q))[:, None] + logarithms("hedgehog", np.asarray(k))[None]
    score = np.where(CAUSAL, np.exp(logs).sum(-1), 0)
    rule = {"score": scores.features("hedgehog"), "mask": masks.causal()}
    for how in IMPLEMENTATIONS:
        output = attend(q, k, v, normalize=normalizers.linear(), implementation=how, **rule)
        np.testing.assert_allclose(output, score @ np.asarray(v), rtol=1e-4, atol=1e-4)
    for how in IMPLEMENTATIONS[:2]:
        run = partial(attend, q, k, v, normalize=PROPORTIONAL, implementation=how, **rule)
        squares = np.where(CAUSAL, score**2, 0)
        answer = squares @ np.asarray(v) / squares.sum(-1, keepdims=True)
        np.testing.assert_allclose(run(mods=(lambda z, q, k: z * z,)), answer, rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_score():
    """Statistics are those of the score and not of its logarithm, by which it is computed."""
    q, k, v = (normal(n, T, size, dtype="float32") for n, size in ((1, H), (2, H), (3, E)))
    logs = logarithms("hedgehog", np.asarray(q))[:, None] + logarithms("hedgehog", np.asarray(k))[None]
    score = np.where(CAUSAL, np.exp(logs).sum(-1), -np.inf)
    rule = {"score": scores.features("hedgehog"), "normalize": PROPORTIONAL, "mask": masks.causal()}
    found = attend_with_stats(q, k, v, **rule)
    np.testing.assert_allclose(found.max_score, score.max(-1), rtol=1e-5)
    np.testing.assert_allclose(found.logsumexp, np.logaddexp.reduce(score, axis=-1), rtol=1e-5)
    weights = np.exp(np.where(CAUSAL, np.log(np.where(CAUSAL, score, 1)), -np.inf))
    weights = weights / weights.sum(-1, keepdims=True)
    surprise = -np.sum(weights * np.log(np.where(CAUSAL, weights, 1)), axis=-1)
    np.testing.assert_allclose(found.entropy, surprise, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=lambda x: getattr(x, "name", x))
def test_features_that_are_large_for_one_side_only_are_all_summed(implementation):
    """All eight features of each pair have about the same product, 200 nats below the largest of query and key."""
    q, k, v = np.array([[100, 0, 0, 0]]), np.array([[-100, 0, 0, 0], [-100, 1, 0, 0]]), np.array([[0], [1]])
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    run = lambda k: attend(  # noqa: E731
        q, k, v, score=scores.features("hedgehog"), normalize=PROPORTIONAL, implementation=implementation
    )
    assert difference(run(k), expected("hedgehog", q, k, v, True)) <= 1e-5
    by_hand = 6 + np.exp(1) + np.exp(-1)
    weight = by_hand / (8 + by_hand)
    gradient = jax.grad(lambda k: run(k).sum())(jnp.asarray(k))
    assert difference(gradient[1, 1], weight * (1 - weight) * 2 * np.sinh(1) / by_hand) <= 1e-5


def test_a_mapped_call_computes_feature_by_feature_only_where_it_must():
    """`vmap` of a `cond` with one bool per mapped call would compute both branches, always."""
    near, far = (jnp.asarray(normal(0, 2, T, H, dtype="float32")) * scale for scale in (1, 200))
    run = partial(attend, score=score_of("random_features"), normalize=PROPORTIONAL, implementation="reference")
    mapped = jax.vmap(lambda x: run(x, x, VALUE))
    for x in (near, far):
        assert difference(mapped(x), jnp.stack([run(row, row, VALUE) for row in x])) <= 1e-5
    found = [equation.primitive.name for equation in equations(mapped, near)]
    assert "cond" in found
    gradient = jax.vmap(jax.grad(lambda x: run(x, x, VALUE).sum()))
    assert "cond" in [equation.primitive.name for equation in equations(gradient, near)]
    assert bool(jnp.isfinite(gradient(far)).all())


def test_nan_is_not_taken_for_a_feature_of_zero():
    """In a query, and in a key that is read; what no row reads stays hidden."""
    for how in IMPLEMENTATIONS:
        rule = {"score": score_of("random_features"), "normalize": PROPORTIONAL, "implementation": how}
        run = jax.jit(lambda q, k, rule=rule: attend(q, k, jnp.ones((T, 1)), mask=masks.prefix(9), **rule)[:, 0])
        x = np.asarray(normal(0, T, H, dtype="float32"))
        bad_row, bad_key, hidden = x.copy(), x.copy(), x.copy()
        bad_row[3], bad_key[5], hidden[9:] = np.nan, np.nan, np.nan
        np.testing.assert_array_equal(np.isnan(run(bad_row, x)), np.arange(T) == 3)
        np.testing.assert_array_equal(np.isnan(run(x, bad_key)), True)
        np.testing.assert_array_equal(run(x, hidden), run(x, np.where(np.isnan(hidden), 1, hidden)))


def test_a_larger_key_changes_no_earlier_output():
    """No bit, and gradients are exactly 0: a query is shifted by the largest key so far, not by that of all."""
    (q, k), rule = map(jnp.asarray, rows("random_features")["std 8"]), {"score": score_of("random_features")}
    for how in IMPLEMENTATIONS:
        call = partial(attend, normalize=PROPORTIONAL, mask=masks.causal(), implementation=how, **rule)

        @jax.jit
        def run(k, call=call):
            output, vjp = jax.vjp(lambda k: call(q, k, VALUE)[:5], k)
            return output, *vjp(VALUE[:5])

        (output, gradient), (other_output, other_gradient) = run(k), run(k.at[5:].multiply(0.1))
        np.testing.assert_array_equal(output, other_output)
        np.testing.assert_array_equal(gradient, other_gradient)
        assert np.all(gradient[5:] == 0)
        assert np.any(gradient[:5] != 0)


# --- The state -------------------------------------------------------------------------------------------------------


def test_decoding_in_a_scan_from_the_empty_state():
    """One compiled step, mapped over a batch; the scale is that of the largest key so far."""
    q, k, v = (jnp.stack([x, x[::-1]]) for x in (*map(jnp.asarray, rows("hedgehog")["larger keys later"]), VALUE))
    step = partial(attend_step, score=scores.features("hedgehog"))

    def decode(q, k, v):
        empty = step(None, q[:0], k[:0], v[:0])[1]
        state, outputs = jax.lax.scan(
            lambda state, x: step(state, *x)[::-1], empty, tuple(x[:, None] for x in (q, k, v))
        )
        return outputs[:, 0], state, empty

    outputs, state, empty = jax.jit(jax.vmap(decode))(q, k, v)
    for n in range(2):
        assert difference(outputs[n], expected("hedgehog", q[n], k[n], v[n])) <= of_exponentials(200)
    np.testing.assert_array_equal(state.log_scale, logarithms("hedgehog", np.asarray(k)).max(axis=1))
    assert np.all(np.isneginf(empty.log_scale))
    assert state.log_scale.dtype == state.values.dtype == jnp.float32


def test_a_state_without_a_scale_holds_the_sums_themselves():
    """As the states of version 0.1 do, and those made of zeros."""
    q, k, v = (normal(n, T, size, dtype="float32") for n, size in ((1, H), (2, H), (3, E)))
    step = partial(attend_step, score=score_of("random_features"))

    @jax.jit
    def outputs(q, k, v):
        whole, (_, state) = step(None, q, k, v)[0], step(None, q[:5], k[:5], v[:5])
        factor = jnp.exp(state.log_scale)
        plain = FeatureState(factor[:, None] * state.values, factor * state.total, state.count)
        zeros = jax.tree.map(jnp.zeros_like, plain)
        return whole, step(plain, q[5:], k[5:], v[5:])[0], step(zeros, q, k, v)[0], step(zeros, 8 * q, 8 * k, v)[0]

    whole, resumed, from_zeros, far = outputs(q, k, v)
    assert difference(resumed, whole[5:]) <= FORWARD["float32"]
    assert difference(from_zeros, whole) <= FORWARD["float32"]
    assert difference(far, expected("random_features", 8 * q, 8 * k, v)) <= of_exponentials(192)


def test_a_scale_that_does_not_fit_is_refused():
    x = jnp.ones((3, H))
    _, state = attend_step(None, x, x, x, score=scores.features("hedgehog"))
    with pytest.raises(ValueError, match=r"state: expected log_scale of shape \(8,\).* got float32\[4\]"):
        attend_step(state._replace(log_scale=jnp.ones(4)), x, x, x, score=scores.features("hedgehog"))
    with pytest.raises(ValueError, match=r"state: expected no log_scale for this rule, got float32\[8\]"):
        attend_step(state, x, x, x, score=scores.features("hedgehog"), normalize=normalizers.linear())


@pytest.mark.slow
@pytest.mark.parametrize("derivative", ["forward", "gradient", "jvp", "hvp"])
def test_memory_is_linear(derivative):
    rule = {"score": scores.random_features(jnp.ones((16, 16))), "normalize": PROPORTIONAL, "mask": masks.causal()}
    run = derivatives_of(partial(attend, implementation="linear_attention", **rule))[derivative]
    check_memory_is_linear(run, (8192, 16384), 16)
