"""The same sentence without its T x S scores: against the dense one, in all forms."""

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
    "behind": lambda: masks.causal(-3),
    "ahead": lambda: masks.causal(2),
    "far ahead": lambda: masks.causal(50),
    "nothing": lambda: masks.causal(-50),
    "lengths": lambda: masks.lengths(jnp.array([[5], [0]]), jnp.array([[9], [4]])),
    "lengths & causal": lambda: masks.lengths(jnp.array([[3], [7]]), 8) & masks.causal() & masks.causal(1),
    "causal & prefix": lambda: masks.causal(-1) & masks.prefix(jnp.array([[4], [6]])),
}


def operands(t: int = T, s: int = S) -> tuple[jax.Array, ...]:
    return normal(7, B, t, N, H), normal(8, B, s, K, H), normal(9, B, s, K, E)


def loss(run, mask):
    """A function of the operands and of the arrays inside the rule."""

    def f(arguments: tuple, rule: tuple) -> jax.Array:
        problem, layout = prepare_heads(*arguments, score=rule[0], normalize=rule[1], mask=mask)
        output = layout.heads_last(run(problem), 2)
        weight = jnp.cos(jnp.arange(output.size, dtype=output.dtype))
        return jnp.sum(jnp.sin(output) * weight.reshape(output.shape))

    return f


def answers(run, mask, arguments: tuple, rule: tuple) -> list[jax.Array]:
    """The value, all gradients, a tangent, a Hessian product, and gradients under a map with shared keys."""
    f = loss(run, mask)
    held = (arguments, rule)
    tangents = jax.tree.map(lambda x: jnp.cos(3.0 * x), held)

    def all_of(held: tuple) -> tuple:
        gradient = lambda held: jax.grad(f, (0, 1))(*held)  # noqa: E731
        first, second = jax.jvp(gradient, (held,), (tangents,))
        (q, k, v), rule = held
        mapped = jax.vmap(lambda q, v: jax.grad(f)((q, k, v), rule))(jnp.stack([q, 2 * q]), jnp.stack([v, -v]))
        return jax.jvp(lambda held: f(*held), (held,), (tangents,)), first, second, mapped

    return jax.tree.leaves(jax.jit(all_of)(held))


def check(name: str, mask: str) -> None:
    arguments, rule = operands(), RULES[name]()
    rule = jax.tree.map(jnp.asarray, rule)
    found = answers(LinearAttention(chunk=CHUNK).attend, MASKS[mask](), arguments, rule)
    expected = answers(dense.attend, MASKS[mask](), arguments, rule)
    check_close(found, expected, 1e-10)


PAIRS = [(name, mask) for i, name in enumerate(RULES) for j, mask in enumerate(MASKS) if (i + 2 * j) % 19 == 1]
OTHERS = [(name, mask) for name in RULES for mask in MASKS if (name, mask) not in PAIRS]


@pytest.mark.parametrize(("name", "mask"), slow_except_every(4, [pytest.param(*pair) for pair in PAIRS]))
def test_every_derivative_is_that_of_the_dense_sentence(name, mask, x64):
    check(name, mask)


@pytest.mark.parametrize(("name", "mask"), long_except_every(4, [pytest.param(*pair) for pair in OTHERS]))
def test_every_rule_under_every_mask(name, mask, x64):
    check(name, mask)


SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (13, 13), (1, 6), (6, 1), (5, 8), (8, 5), (0, 3), (3, 0)]


@pytest.mark.parametrize("sizes", [[(1, 6), (5, 8), (0, 3)], *slow(SIZES)], ids=["three", "all"])
@pytest.mark.parametrize("name", [*slow("elu_plus_one"), "concat, softmax", *slow("l2, uniform")])
def test_any_shape_and_any_chunk(name, sizes, x64):
    """1, 2, chunk - 1, chunk, chunk + 1, odd, T != S; the size of a chunk changes nothing."""
    score, normalize = RULES[name]()

    @jax.jit
    def errors(many: list) -> list:
        found = []
        for q, k, v in many:
            mask = masks.causal(v.shape[1] - q.shape[1])
            problem, _ = prepare_heads(q, k, v, score=score, normalize=normalize, mask=mask)
            expected = dense.attend(problem)
            for chunk in (1, CHUNK, None):
                output = LinearAttention(chunk=chunk).attend(problem)
                assert output.shape == expected.shape
                found.append(jnp.max(jnp.abs(output - expected), initial=0))
        return found

    assert max(errors([operands(*size) for size in sizes])) <= 1e-12


@pytest.mark.parametrize("name", [*slow("elu_plus_one", "concat, softmax"), "concat, sinks"])
def test_leading_axes_broadcast(name, x64):
    """Keys without the batch axis of the query, and one value for all."""
    q, k, v = normal(0, 3, N, T, H), normal(1, 1, N, S, H), normal(2, S, E)
    score, normalize = RULES[name]()
    rule = {
        "score": score,
        "normalize": normalize,
        "mask": masks.causal() & masks.lengths(jnp.arange(12).reshape(3, N)),
    }
    both = lambda *x: [attend(*x, implementation=name, **rule) for name in ("linear_attention", "reference")]  # noqa: E731
    found, expected = jax.jit(both)(q, k, v)
    assert found.shape == (3, N, T, E)
    assert difference(found, expected) <= 1e-12


@pytest.mark.parametrize("dtype", [*slow("float32"), "bfloat16", *slow("float16")])
@pytest.mark.parametrize("name", [*slow("elu_plus_one"), "concat, softmax"])
def test_precision(name, dtype):
    """Summed in float32, given back in the dtype of the query."""
    score, normalize = jax.tree.map(lambda x: x.astype(dtype) if hasattr(x, "dtype") else x, RULES[name]())
    arguments = [x.astype(dtype) for x in operands(300, 300)]
    run = jax.jit(
        partial(attend_heads, mask=masks.causal(), score=score, normalize=normalize), static_argnames="implementation"
    )
    found, expected = (run(*arguments, implementation=name) for name in ("linear_attention", "reference"))
    assert found.dtype == expected.dtype == dtype
    rounding = 1e-5 if dtype == "float32" else float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found.astype("float32"), expected.astype("float32"), atol=rounding, rtol=rounding)


@pytest.mark.parametrize("order", [1, *slow(-1)])
def test_scores_far_beyond_exp(order):
    """Scores between -1e4 and 1e4, growing or falling along the keys of several chunks, in float32."""
    k = order * jnp.linspace(-1e4, 1e4, 300)[:, None]
    rule = {"score": scores.concat(jnp.ones(1), jnp.ones(1)), "mask": masks.causal()}
    f = lambda k, name: attend(1e3 + 0 * k, k, jnp.sin(k), implementation=name, **rule)  # noqa: E731
    for run in (f, lambda k, name: jax.grad(lambda k: jnp.sum(f(k, name)))(k)):
        found, expected = (jax.jit(run, static_argnums=1)(k, name) for name in ("linear_attention", "reference"))
        assert jnp.all(jnp.isfinite(found))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, pytest.param(np.inf, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [*slow("elu_plus_one", "random_features", "concat, softmax"), "concat, sinks", *slow("cosine")]
)
def test_what_nobody_may_see_changes_nothing(name, poison, x64):
    """Padding rows, bit for bit; the empty batch element has output 0 and gradient 0."""
    mask = masks.lengths(jnp.array([[5], [0]]), jnp.array([[6], [9]])) & masks.causal()
    f = loss(LinearAttention(chunk=CHUNK).attend, mask)
    q, k, v = operands()

    def run(fill: float) -> tuple:
        hide = lambda x, start: x.at[0, start:].set(fill).at[1].set(fill)  # noqa: E731
        bad = hide(q, 6), hide(k, 5), hide(v, 5)
        gradient = jax.grad(f, (0, 1))
        second = jax.jvp(lambda x: gradient(x, RULES[name]()), (bad,), (operands(),))[1]
        return f(bad, RULES[name]()), gradient(bad, RULES[name]()), second

    run = jax.jit(run)
    clean, found = jax.tree.map(np.asarray, (run(1.0), run(poison)))
    jax.tree.map(np.testing.assert_array_equal, found, clean)
    query, key, value = found[1][0]
    assert all(np.all(x[1] == 0) for x in (query, key, value))
    assert all(np.any(x[0] != 0) for x in (key, value))


@pytest.mark.parametrize("name", [pytest.param("elu_plus_one", marks=pytest.mark.slow), "concat, sinks"])
def test_keys_beyond_the_last_query_change_nothing(name, x64):
    """Under a causal mask with more keys than queries."""
    f = loss(LinearAttention(chunk=CHUNK).attend, masks.causal(-3))
    q, k, v = operands(6)
    seen = (np.arange(S) < 3)[:, None, None]
    clean, bad = ((q, *(np.where(seen, x, fill) for x in (k, v))) for fill in (1, np.nan))
    run = jax.jit(jax.value_and_grad(f, (0, 1)))
    jax.tree.map(np.testing.assert_array_equal, run(bad, RULES[name]()), run(clean, RULES[name]()))


@pytest.mark.parametrize("wide", [*slow(False), True], ids=["x32", "x64"])
@pytest.mark.parametrize("name", slow("random_features", "concat, sinks", "cosine"))
def test_nothing_is_promoted_silently(name, wide):
    """Under strict dtypes and ranks, with 64 bits allowed and not; float32 stays float32."""
    mask = masks.causal(1) & masks.lengths(jnp.array([[5], [2]], jnp.int32), 8)
    rule = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), RULES[name]())
    arguments = tuple(x.astype(jnp.float32) for x in operands())
    with jax.enable_x64(wide), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
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
    """Weights, output and gradients are 0, for cancelling scores too, in both evaluations."""
    q, k, v = jnp.array([[1.0]]), jnp.array([[1.0], [-1.0]]), jnp.array([[2.0], [5.0]])
    for name in ("reference", "blockwise", "linear_attention"):
        f = partial(attend, score=scores.dot(), normalize=PROPORTIONAL, implementation=name)
        found = jax.jit(jax.value_and_grad(lambda *x: f(*x).sum(), (0, 1, 2)))(q, k, v)  # noqa: B023
        assert all(np.all(x == 0) for x in jax.tree.leaves(found))


# --- Memory and choice -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [*slow("forward", "gradient", "jvp"), "hvp"])
@pytest.mark.parametrize("name", ["elu_plus_one", *slow("concat, softmax")])
def test_memory_is_linear(name, what):
    """A map of 16384 x 16384 scores would need 1 GiB."""
    score = scores.features("elu_plus_one") if name == "elu_plus_one" else scores.concat(jnp.ones(16), jnp.ones(16))
    normalize = RULES[name]()[1]
    rule = {"score": score, "normalize": normalize, "mask": masks.causal(), "implementation": "linear_attention"}
    check_memory_is_linear(derivatives_of(partial(attend, **rule))[what], (8192, 16384), 16)


def largest(jaxpr) -> int:
    """The number of entries of the largest array that a program makes."""
    inner = [x for eqn in jaxpr.eqns for x in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns"))]
    inner = [getattr(x, "jaxpr", x) for x in inner]
    sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "size")]
    return max([*sizes, *(largest(x) for x in inner if hasattr(x, "eqns"))], default=0)


def test_no_array_has_an_entry_per_pair():
    x = jax.ShapeDtypeStruct((2000, 8), jnp.float32)
    rule = {"score": scores.features("relu"), "normalize": PROPORTIONAL, "mask": masks.causal()}
    found = {
        name: largest(jax.make_jaxpr(jax.grad(lambda *x: attend(*x, implementation=name, **rule).sum()))(x, x, x).jaxpr)  # noqa: B023
        for name in ("linear_attention", "reference")
    }
    assert found["linear_attention"] < 50_000
    assert found["reference"] >= 4_000_000


def test_positions_matter_only_where_the_mask_runs_along_them(x64):
    arguments = [np.asarray(x)[0, :, 0] for x in operands()]
    rule = {"mask": masks.lengths(4, 6), "query_positions": jnp.arange(T)[::-1], "key_positions": jnp.arange(S) * 2}
    rule |= {"score": scores.features("relu"), "normalize": PROPORTIONAL}
    both = lambda *x: [attend(*x, implementation=name, **rule) for name in ("linear_attention", "reference")]  # noqa: E731
    found, expected = jax.jit(both)(*arguments)
    assert difference(found, expected) <= 1e-12
