"""Linear attention never forms its T x S scores, and agrees with the dense formula in every derivative."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    attend,
    attend_heads,
    attend_step,
    masks,
    normalizers,
    scores,
)
from jax_attention.attention.prepare import prepare_heads
from jax_attention.implementations import dense
from jax_attention.implementations.linear_attention import LinearAttention
from tests.support.arrays import check_close, difference, normal
from tests.support.derivatives import check_memory_is_linear, derivatives_of
from tests.support.tiers import long_except_every, slow, slow_except_every

B, T, S, N, K, H, E, F = 2, 9, 7, 4, 2, 3, 2, 5
CHUNK = 4


def concat() -> scores.Score:
    return scores.concat(normal(1, N, H), normal(2, N, H), normal(3, N))


PROPORTIONAL = normalizers.proportional()
RULES = {
    "elu_plus_one": lambda: (scores.features("elu_plus_one"), PROPORTIONAL),
    "relu": lambda: (scores.features("relu"), normalizers.proportional(eps=0.1)),
    "hedgehog": lambda: (scores.features("hedgehog"), normalizers.linear()),
    "random_features": lambda: (scores.random_features(normal(0, N, F, H)), PROPORTIONAL),
    "cosine": lambda: (scores.cosine(normal(4, N)), normalizers.linear(mean=True)),
    "general": lambda: (scores.general(normal(5, N, H, H)), normalizers.linear()),
    "concat, linear": lambda: (concat(), normalizers.linear(mean=True)),
    "concat, softmax": lambda: (concat(), normalizers.softmax()),
    "concat, sinks": lambda: (concat(), normalizers.softmax(normal(6, N))),
    "l2, uniform": lambda: (scores.l2(0.3), normalizers.uniform()),
}
MASKS = {
    "none": lambda: None,
    "causal": lambda: masks.causal(),
    "offset -3": lambda: masks.causal(-3),
    "offset 2": lambda: masks.causal(2),
    "offset 50": lambda: masks.causal(50),
    "no pair": lambda: masks.causal(-50),
    "lengths": lambda: masks.lengths(jnp.array([[5], [0]]), jnp.array([[9], [4]])),
    "lengths & causal": lambda: masks.lengths(jnp.array([[3], [7]]), 8) & masks.causal() & masks.causal(1),
    "causal & prefix": lambda: masks.causal(-1) & masks.prefix(jnp.array([[4], [6]])),
}


def operands(t: int = T, s: int = S) -> tuple[jax.Array, ...]:
    return normal(7, B, t, N, H), normal(8, B, s, K, H), normal(9, B, s, K, E)


def loss(run, mask):
    """A scalar function of the operands and of the arrays inside the rule."""

    def f(arguments: tuple, rule: tuple) -> jax.Array:
        call, layout = prepare_heads(*arguments, score=rule[0], normalize=rule[1], mask=mask)
        output = layout.heads_last(run(call), 2)
        weight = jnp.cos(jnp.arange(output.size, dtype=output.dtype))
        return jnp.sum(jnp.sin(output) * weight.reshape(output.shape))

    return f


def derivatives(run, mask, arguments: tuple, rule: tuple) -> list[jax.Array]:
    """Loss, all gradients, a tangent, a Hessian product, and gradients under `vmap` with shared keys."""
    f = loss(run, mask)
    inputs = (arguments, rule)
    tangents = jax.tree.map(lambda x: jnp.cos(3.0 * x), inputs)

    def results(inputs: tuple) -> tuple:
        gradient = lambda inputs: jax.grad(f, (0, 1))(*inputs)  # noqa: E731
        first, second = jax.jvp(gradient, (inputs,), (tangents,))
        (q, k, v), rule = inputs
        mapped = jax.vmap(lambda q, v: jax.grad(f)((q, k, v), rule))(jnp.stack([q, 2 * q]), jnp.stack([v, -v]))
        return jax.jvp(lambda inputs: f(*inputs), (inputs,), (tangents,)), first, second, mapped

    return jax.tree.leaves(jax.jit(results)(inputs))


def check(name: str, mask: str) -> None:
    arguments, rule = operands(), RULES[name]()
    rule = jax.tree.map(jnp.asarray, rule)
    actual = derivatives(LinearAttention(chunk=CHUNK).attend, MASKS[mask](), arguments, rule)
    expected = derivatives(dense.attend, MASKS[mask](), arguments, rule)
    check_close(actual, expected, 1e-10)


PAIRS = [(name, mask) for i, name in enumerate(RULES) for j, mask in enumerate(MASKS) if (i + 2 * j) % 19 == 1]
OTHERS = [(name, mask) for name in RULES for mask in MASKS if (name, mask) not in PAIRS]


@pytest.mark.parametrize(("name", "mask"), slow_except_every(4, [pytest.param(*pair) for pair in PAIRS]))
def test_every_derivative_equals_that_of_the_dense_formula(name, mask, x64):
    check(name, mask)


@pytest.mark.parametrize(("name", "mask"), long_except_every(4, [pytest.param(*pair) for pair in OTHERS]))
def test_every_rule_under_every_mask(name, mask, x64):
    check(name, mask)


SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (13, 13), (1, 6), (6, 1), (5, 8), (8, 5), (0, 3), (3, 0)]


@pytest.mark.parametrize("sizes", [[(1, 6), (5, 8), (0, 3)], *slow(SIZES)], ids=["three", "all"])
@pytest.mark.parametrize("name", [*slow("elu_plus_one"), "concat, softmax", *slow("l2, uniform")])
def test_any_shape_and_any_chunk(name, sizes, x64):
    """Lengths 1, 2, chunk - 1, chunk, chunk + 1, odd, and T != S; the chunk size changes nothing."""
    score, normalize = RULES[name]()

    @jax.jit
    def errors(many: list) -> list:
        differences = []
        for q, k, v in many:
            mask = masks.causal(v.shape[1] - q.shape[1])
            call, _ = prepare_heads(q, k, v, score=score, normalize=normalize, mask=mask)
            expected = dense.attend(call)
            for chunk in (1, CHUNK, None):
                output = LinearAttention(chunk=chunk).attend(call)
                assert output.shape == expected.shape
                differences.append(jnp.max(jnp.abs(output - expected), initial=0))
        return differences

    assert max(errors([operands(*size) for size in sizes])) <= 1e-12


@pytest.mark.parametrize("name", [*slow("elu_plus_one", "concat, softmax"), "concat, sinks"])
def test_batch_dimensions_broadcast(name, x64):
    """Keys without the batch dimension of the query, and one value operand for all."""
    q, k, v = normal(0, 3, N, T, H), normal(1, 1, N, S, H), normal(2, S, E)
    score, normalize = RULES[name]()
    rule = {
        "score": score,
        "normalize": normalize,
        "mask": masks.causal() & masks.lengths(jnp.arange(12).reshape(3, N)),
    }
    outputs = lambda *x: [attend(*x, implementation=name, **rule) for name in ("linear_attention", "reference")]  # noqa: E731
    actual, expected = jax.jit(outputs)(q, k, v)
    assert actual.shape == (3, N, T, E)
    assert difference(actual, expected) <= 1e-12


@pytest.mark.parametrize("dtype", [*slow("float32"), "bfloat16", *slow("float16")])
@pytest.mark.parametrize("name", [*slow("elu_plus_one"), "concat, softmax"])
def test_precision(name, dtype):
    """Sums are in float32; the output has the dtype of the query."""
    score, normalize = jax.tree.map(lambda x: x.astype(dtype) if hasattr(x, "dtype") else x, RULES[name]())
    arguments = [x.astype(dtype) for x in operands(300, 300)]
    run = jax.jit(
        partial(attend_heads, mask=masks.causal(), score=score, normalize=normalize), static_argnames="implementation"
    )
    actual, expected = (run(*arguments, implementation=name) for name in ("linear_attention", "reference"))
    assert actual.dtype == expected.dtype == dtype
    rounding = 1e-5 if dtype == "float32" else float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(actual.astype("float32"), expected.astype("float32"), atol=rounding, rtol=rounding)


@pytest.mark.parametrize("order", [1, *slow(-1)])
def test_scores_far_beyond_exp(order):
    """Scores from -1e4 to 1e4, in rising or falling order over the keys of several chunks, in float32."""
    k = order * jnp.linspace(-1e4, 1e4, 300)[:, None]
    rule = {"score": scores.concat(jnp.ones(1), jnp.ones(1)), "mask": masks.causal()}
    f = lambda k, name: attend(1e3 + 0 * k, k, jnp.sin(k), implementation=name, **rule)  # noqa: E731
    for run in (f, lambda k, name: jax.grad(lambda k: jnp.sum(f(k, name)))(k)):
        actual, expected = (jax.jit(run, static_argnums=1)(k, name) for name in ("linear_attention", "reference"))
        assert jnp.all(jnp.isfinite(actual))
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [*slow("elu_plus_one", "random_features", "concat, softmax"), "concat, sinks", *slow("cosine")]
)
def test_hidden_numbers_change_nothing(name, poison, x64):
    """NaN in padding changes no bit; the empty batch element has output 0 and gradient 0."""
    mask = masks.lengths(jnp.array([[5], [0]]), jnp.array([[6], [9]])) & masks.causal()
    f = loss(LinearAttention(chunk=CHUNK).attend, mask)
    q, k, v = operands()

    def run(fill: float) -> tuple:
        hide = lambda x, start: x.at[0, start:].set(fill).at[1].set(fill)  # noqa: E731
        poisoned = hide(q, 6), hide(k, 5), hide(v, 5)
        gradient = jax.grad(f, (0, 1))
        second = jax.jvp(lambda x: gradient(x, RULES[name]()), (poisoned,), (operands(),))[1]
        return f(poisoned, RULES[name]()), gradient(poisoned, RULES[name]()), second

    run = jax.jit(run)
    clean, actual = jax.tree.map(np.asarray, (run(1.0), run(poison)))
    jax.tree.map(np.testing.assert_array_equal, actual, clean)
    query, key, value = actual[1][0]
    assert all(np.all(x[1] == 0) for x in (query, key, value))
    assert all(np.any(x[0] != 0) for x in (key, value))


@pytest.mark.parametrize("name", [pytest.param("elu_plus_one", marks=pytest.mark.slow), "concat, sinks"])
def test_keys_beyond_the_last_query_change_nothing(name, x64):
    """NaN in keys that a causal mask hides from all queries changes no bit."""
    f = loss(LinearAttention(chunk=CHUNK).attend, masks.causal(-3))
    q, k, v = operands(6)
    used = (np.arange(S) < 3)[:, None, None]
    clean, poisoned = ((q, *(np.where(used, x, fill) for x in (k, v))) for fill in (1, np.nan))
    run = jax.jit(jax.value_and_grad(f, (0, 1)))
    jax.tree.map(np.testing.assert_array_equal, run(poisoned, RULES[name]()), run(clean, RULES[name]()))


@pytest.mark.parametrize("x64_enabled", [*slow(False), True], ids=["x32", "x64"])
@pytest.mark.parametrize("name", slow("random_features", "concat, sinks", "cosine"))
def test_nothing_is_promoted_silently(name, x64_enabled):
    """float32 stays float32 under strict dtypes and ranks, with and without `jax_enable_x64`."""
    mask = masks.causal(1) & masks.lengths(jnp.array([[5], [2]], jnp.int32), 8)
    rule = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), RULES[name]())
    arguments = tuple(x.astype(jnp.float32) for x in operands())
    with jax.enable_x64(x64_enabled), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        gradients = jax.jit(jax.grad(loss(LinearAttention(chunk=CHUNK).attend, mask), (0, 1)))(arguments, rule)
        if name == "cosine":
            x = arguments[1][0]
            state = None
            for _ in range(2):
                rule = {"score": scores.dot(), "normalize": normalizers.linear(mean=True)}
                state = attend_step(state, x, x, x, **rule)[1]
            assert state.values.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 and jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradients))


def test_a_row_whose_scores_sum_to_zero():
    """Output and gradients are 0 in every implementation if the scores of a row cancel."""
    q, k, v = jnp.array([[1.0]]), jnp.array([[1.0], [-1.0]]), jnp.array([[2.0], [5.0]])
    for name in ("reference", "blockwise", "linear_attention"):
        f = partial(attend, score=scores.dot(), normalize=PROPORTIONAL, implementation=name)
        actual = jax.jit(jax.value_and_grad(lambda *x: f(*x).sum(), (0, 1, 2)))(q, k, v)  # noqa: B023
        assert all(np.all(x == 0) for x in jax.tree.leaves(actual))


# --- Memory and choice -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("derivative", [*slow("forward", "gradient", "jvp"), "hvp"])
@pytest.mark.parametrize("name", ["elu_plus_one", *slow("concat, softmax")])
def test_memory_is_linear(name, derivative):
    """A map of 16384 x 16384 scores would need 1 GiB."""
    score = scores.features("elu_plus_one") if name == "elu_plus_one" else scores.concat(jnp.ones(16), jnp.ones(16))
    normalize = RULES[name]()[1]
    rule = {"score": score, "normalize": normalize, "mask": masks.causal(), "implementation": "linear_attention"}
    check_memory_is_linear(derivatives_of(partial(attend, **rule))[derivative], (8192, 16384), 16)


def largest_array(jaxpr) -> int:
    """Number of entries of the largest array in a program."""
    inner = [x for eqn in jaxpr.eqns for x in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns"))]
    inner = [getattr(x, "jaxpr", x) for x in inner]
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "size")]
    return max([*sizes, *(largest_array(x) for x in inner if hasattr(x, "eqns"))], default=0)


def test_no_array_has_an_entry_per_pair():
    x = jax.ShapeDtypeStruct((2000, 8), jnp.float32)
    rule = {"score": scores.features("relu"), "normalize": PROPORTIONAL, "mask": masks.causal()}

    def largest_of(implementation: str) -> int:
        gradient = jax.grad(lambda *x: attend(*x, implementation=implementation, **rule).sum())
        return largest_array(jax.make_jaxpr(gradient)(x, x, x).jaxpr)

    assert largest_of("linear_attention") < 50_000
    assert largest_of("reference") >= 4_000_000


def test_positions_are_free_if_the_mask_is_not_causal(x64):
    arguments = [np.asarray(x)[0, :, 0] for x in operands()]
    rule = {"mask": masks.lengths(4, 6), "query_positions": jnp.arange(T)[::-1], "key_positions": jnp.arange(S) * 2}
    rule |= {"score": scores.features("relu"), "normalize": PROPORTIONAL}
    outputs = lambda *x: [attend(*x, implementation=name, **rule) for name in ("linear_attention", "reference")]  # noqa: E731
    actual, expected = jax.jit(outputs)(*arguments)
    assert difference(actual, expected) <= 1e-12
