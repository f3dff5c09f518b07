"""What holds for every call: dtypes, order, precision, statistics, dropout, causality, symmetry, determinism."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_attention import (
    Dropout,
    attend,
    attend_heads,
    attend_heads_with_stats,
    attend_with_stats,
    attention_weights,
    attention_weights_heads,
    masks,
    mods,
    normalizers,
    scores,
)
from tests import cases, oracle
from tests.tolerances import FORWARD

HALF = ("bfloat16", "float16")


def normal(seed: int, *shapes: tuple[int, ...], dtype="float32") -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def qkv(seed: int = 0, rows: int = 5, columns: int = 6, lead: tuple[int, ...] = (), dtype="float32"):
    return normal(seed, (*lead, rows, 4), (*lead, columns, 4), (*lead, columns, 3), dtype=dtype)


def equations(f, *args) -> list:
    """All equations of the jaxpr, those of inner jaxprs included."""
    found, waiting = [], [jax.make_jaxpr(f)(*args).jaxpr]
    while waiting:
        for equation in waiting.pop().eqns:
            found.append(equation)
            waiting += [
                getattr(x, "jaxpr", x)
                for x in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr)
                if is_jaxpr(x)
            ]
    return found


def is_jaxpr(x) -> bool:
    return hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")


def dtypes(equation) -> set[str]:
    """The names of the dtypes that come out of an equation."""
    return {x.aval.dtype.name for x in equation.outvars if hasattr(x.aval, "dtype")}


def products(f, *args) -> list:
    return [e for e in equations(f, *args) if e.primitive.name == "dot_general"]


# Dtypes


@pytest.mark.parametrize("dtype", [*HALF, "float32", "float64"])
@pytest.mark.parametrize("rule", [{}, {"mask": masks.causal()}, {"dropout": Dropout(jax.random.key(0), 0.5)}], ids=str)
def test_output_has_the_dtype_of_the_query_and_statistics_at_least_float32(dtype, rule):
    with jax.enable_x64(dtype == "float64"):
        q, k, v = qkv(dtype=dtype)
        wide = "float64" if dtype == "float64" else "float32"
        assert attend(q, k, v, **rule).dtype == dtype
        assert attention_weights(q, k, v, **rule).dtype == dtype
        output, *statistics = attend_with_stats(q, k, v, **rule)
        assert output.dtype == dtype
        assert {x.dtype.name for x in statistics} == {wide}


def test_mixed_dtypes_follow_the_query():
    q, k, v = qkv(dtype="bfloat16")
    assert attend(q, k.astype("float32"), v).dtype == jnp.bfloat16
    assert attend(q.astype("float32"), k, v).dtype == jnp.float32


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("part", "case"), cases.named_parts())
def test_half_precision_computes_in_float32(dtype, part, case):
    """No product, exponential or sum is taken in half precision (maxtext#1225), forward or backward, by any array."""
    d = cases.Draw(np.random.default_rng(0), cases.Shape(3, 4), dtype=dtype)
    ours = case.build(d)[0]
    operands = [x.jax for x in cases.operands(d, ours if part == "score" else None)]
    leaves, structure = jax.tree.flatten(ours if case.name != "plain" else None)
    leaves = [jnp.asarray(x) for x in leaves]
    real = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]

    def loss(q, k, v, *params):
        given = iter(params)
        held = [next(given) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves]
        value = ours if case.name == "plain" else jax.tree.unflatten(structure, held)
        return jnp.sum(attend(q, k, v, **cases.rule_arguments(part, value)).astype("float32"))

    moved = {"convert_element_type", "transpose", "reshape", "broadcast_in_dim", "slice", "concatenate", "copy", "jit"}
    gradient = jax.grad(loss, tuple(range(3 + len(real))))
    for equation in equations(gradient, *operands, *real):
        if equation.primitive.name not in moved:
            assert dtype not in dtypes(equation), equation


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_error_is_no_worse_than_torch(dtype, causal):
    """Both against float64, on the same rounded inputs; at most 1.5 times PyTorch's own error (flax#982)."""
    ours, theirs = [], []
    for seed in range(5):
        arrays = [np.random.default_rng((seed, i)).normal(size=(1, 2, 32, 16)) for i in range(3)]
        tensors = [torch.tensor(x).to(getattr(torch, dtype)) for x in arrays]
        exact = [x.double().numpy() for x in tensors]
        expected = np.stack([loops(*(x[0, n] for x in exact), causal) for n in range(2)])
        peer = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)[0].double().numpy()
        mask = masks.causal() if causal else None
        got = attend(*(jnp.asarray(x, dtype) for x in exact), mask=mask)[0].astype("float32")
        ours.append(np.abs(got - expected))
        theirs.append(np.abs(peer - expected))
    for measure in (np.max, np.mean):
        assert measure(ours) <= 1.5 * measure(theirs)


def loops(q, k, v, causal: bool) -> np.ndarray:
    return oracle.attend(q, k, v, score=oracle.scaled_dot(), mask=oracle.causal() if causal else None).output


def test_float64_is_true_float64(x64):
    """Never cast down on the way (jax#34114)."""
    q, k, v = qkv(dtype="float64")
    found = set().union(*(dtypes(e) for e in equations(attend, q, k, v)))
    assert "float64" in found
    assert "float32" not in found
    np.testing.assert_allclose(attend(q, k, v), loops(q, k, v, False), rtol=FORWARD["float64"])


# Precision of products: a flag that is never used is worse than none (flax#4008, jax#7010)


PRESET = jax.lax.DotAlgorithmPreset.BF16_BF16_F32


@pytest.mark.parametrize("precision", ["highest", "default", "high", jax.lax.Precision.HIGHEST, PRESET], ids=str)
@pytest.mark.parametrize("name", ["default", "general", "additive", "plain"])
def test_precision_reaches_every_product(precision, name):
    """Forward and backward, and in a user's own score."""
    q, k, v, w = normal(0, (3, 4), (5, 4), (5, 2), (4, 4))
    score = {
        "default": None,
        "general": scores.general(w),
        "additive": scores.additive(w, w),
        "plain": lambda q, k: jnp.einsum("th,sh->ts", q @ w, k),
    }[name]
    expected = (
        precision if precision is PRESET else getattr(jax.lax.Precision, getattr(precision, "name", precision).upper())
    )

    def f(q, k, v, precision):
        return jnp.sum(attend(q, k, v, score=score, mask=masks.causal(), precision=precision))

    def backward(q, k, v, precision):
        return jax.grad(f, (0, 1, 2))(q, k, v, precision)

    for g in (f, backward):
        found = products(lambda *x, g=g: g(*x, precision), q, k, v)
        assert len(found) >= 2
        pairs = [e.params["precision"] for e in found]
        assert {x for pair in pairs for x in (pair if isinstance(pair, tuple) else (pair,))} == {expected}
        unset = products(lambda *x, g=g: g(*x, None), q, k, v)
        assert {e.params["precision"] for e in unset} == {None}
    named = products(lambda *x: jax.vjp(lambda *y: attend(*y, precision="highest"), *x)[1](v[:3]), q, k, v)
    assert len(named) >= 5


def test_precision_does_not_leak_out_of_the_call():
    q, k, v = qkv()
    found = products(lambda: (attend(q, k, v, precision="highest"), q @ k.T))
    assert sorted(e.params["precision"] is None for e in found) == [False, False, True]


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_precision_reaches_the_derivative_of_a_compiled_call(implementation):
    """Its rule is traced when the call is long over."""
    q, k, v = qkv()
    run = jax.jit(lambda *x: jnp.sum(attend(*x, precision="highest", implementation=implementation)))
    found = products(jax.grad(run, (0, 1, 2)), q, k, v)
    assert len(found) >= 5
    assert {e.params["precision"] for e in found} == {(jax.lax.Precision.HIGHEST,) * 2}


# Order: score, mods from left to right, mask, normalize, dropout, combine


def test_order_of_the_stages():
    """Each stage records what it is given; the sentence is replayed by hand."""
    q, k, v = qkv()
    seen = []

    def stage(name, f):
        def call(*args):
            seen.append(name)
            return f(*args)

        return call

    rng = Dropout(jax.random.key(3), 0.4)
    output = attend(
        q,
        k,
        v,
        score=stage("score", lambda q, k: q @ k.T),
        mods=(stage("first", lambda z, q, k: z + 1.0), stage("second", lambda z, q, k: z * 3.0)),
        mask=stage("mask", lambda q, k: k <= q),
        normalize=stage("normalize", lambda z, where: jnp.where(where, z, 5.0) / 7.0),
        dropout=rng,
    )
    assert [name for name in seen if name != "mask"] == ["score", "first", "second", "normalize"]
    rows, columns = jnp.arange(5)[:, None], jnp.arange(6)[None]
    weights = jnp.where(columns <= rows, (q @ k.T + 1.0) * 3.0 / 7.0, 0)
    expected = rng(weights, rows, columns) @ v
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_soft_cap_and_bias_do_not_commute():
    q, k, v = qkv()
    bias, cap = mods.bias(jnp.full((5, 6), 3.0).at[:, 0].set(0.0)), mods.soft_cap(1.0)
    z = q @ k.T / 2
    for chain, expected in (((bias, cap), jnp.tanh(z + bias.array)), ((cap, bias), jnp.tanh(z) + bias.array)):
        got = attention_weights(q, k, v, mods=chain)
        np.testing.assert_allclose(got, jax.nn.softmax(expected, axis=-1), rtol=1e-5, atol=1e-6)


# Statistics


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"mask": masks.causal(-1), "mods": (mods.alibi(0.2),)},
        {"normalize": normalizers.softmax(0.5), "dropout": Dropout(jax.random.key(1), 0.3)},
        {"normalize": normalizers.entmax15()},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_asking_for_statistics_changes_no_bit(rule, dtype):
    """transformers#33996, flax#4744: to look at the weights must not be to compute something else."""
    q, k, v = qkv(dtype=dtype)
    heads = [jnp.stack([x, x + 1], axis=-2) for x in (q, k, v)]
    for compile_ in (lambda f: f, jax.jit):
        plain = compile_(lambda *x: attend(*x, **rule))(q, k, v)
        np.testing.assert_array_equal(compile_(lambda *x: attend_with_stats(*x, **rule).output)(q, k, v), plain)
    several = attend_heads(*heads, **rule)
    np.testing.assert_array_equal(attend_heads_with_stats(*heads, **rule).output, several)


# Dropout


def pattern(dropout: Dropout, q_pos, k_pos, lead: tuple[int, ...] = ()) -> jax.Array:
    """Which pairs are kept, through the public call."""
    q, k, v = (jnp.zeros((*lead, n, 2)) for n in (len(q_pos), len(k_pos), len(k_pos)))
    positions = {"query_positions": jnp.asarray(q_pos), "key_positions": jnp.asarray(k_pos)}
    return attention_weights(q, k, v, dropout=dropout, normalize=normalizers.uniform(), **positions) > 0


def test_dropout_belongs_to_positions():
    """Any block of rows and columns, in any order, keeps the pairs that the whole keeps."""
    dropout = Dropout(jax.random.key(0), 0.5)
    whole = pattern(dropout, range(8), range(9), (2, 3))
    rows, columns = np.array([6, 1, 2]), np.array([8, 0, 5, 3])
    block = pattern(dropout, rows, columns, (2, 3))
    np.testing.assert_array_equal(block, whole[..., rows[:, None], columns])
    assert len({x.tobytes() for x in np.asarray(whole).reshape(6, -1)}) == 6  # every batch element and head has its own


def test_dropout_depends_on_rng_and_can_be_shared():
    first, other = (pattern(Dropout(jax.random.key(seed), 0.5), range(8), range(8), (3,)) for seed in (0, 1))
    assert jnp.any(first != other)
    shared = pattern(Dropout(jax.random.key(0), 0.5, shared=True), range(8), range(8), (3,))
    assert jnp.all(shared == shared[0])
    np.testing.assert_array_equal(shared[0], first[0])
    old = pattern(Dropout(jax.random.PRNGKey(0), 0.5), range(8), range(8), (3,))
    np.testing.assert_array_equal(old, first)


def test_grouped_heads_drop_like_repeated_ones():
    q, k, v = normal(0, (2, 5, 4, 8), (2, 5, 2, 8), (2, 5, 2, 3))
    rule = {"dropout": Dropout(jax.random.key(0), 0.5)}
    repeated = [jnp.repeat(x, 2, axis=2) for x in (k, v)]
    grouped = attention_weights_heads(q, k, v, **rule)
    np.testing.assert_array_equal(grouped == 0, attention_weights_heads(q, *repeated, **rule) == 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_rate_and_expectation(rate):
    """The kept share is binomial, within 4 standard deviations; what is kept is scaled by 1 / (1 - rate)."""
    kept = np.asarray(pattern(Dropout(jax.random.key(5), rate), range(64), range(64), (4,)))
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / kept.size)
    for axis in (-1, -2):  # no row and no column is dropped or kept as a whole
        spread = kept.mean(axis)
        assert spread.std() < 2 * np.sqrt(rate * (1 - rate) / 64)
    q, k, v = qkv()
    clean = attention_weights(q, k, v)
    dropped = attention_weights(q, k, v, dropout=Dropout(jax.random.key(5), rate))
    np.testing.assert_allclose(dropped, jnp.where(dropped > 0, clean / (1 - rate), 0), rtol=1e-6)


def test_dropout_is_the_same_forward_and_backward(x64):
    """Other bits in the backward pass are a classic of hand-written kernels; here it is that of a fixed pattern."""
    q, k, v = qkv(dtype="float64")
    dropout = Dropout(jax.random.key(2), 0.5)
    kept = pattern(dropout, range(5), range(6))
    fixed = lambda z, where: jnp.where(kept, jax.nn.softmax(z) * 2, 0)  # noqa: E731
    by_rng = jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x, dropout=dropout))), (0, 1, 2))(q, k, v)
    by_hand = jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x, normalize=fixed))), (0, 1, 2))(q, k, v)
    for got, expected in zip(by_rng, by_hand, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def test_rate_zero_is_no_dropout():
    q, k, v = qkv()
    np.testing.assert_array_equal(attend(q, k, v, dropout=Dropout(jax.random.key(0), 0.0)), attend(q, k, v))


# Causality, symmetry, independence


@pytest.mark.parametrize(("rows", "columns", "offset"), [(6, 6, 0), (3, 6, 3), (6, 3, 0), (4, 6, -1)])
def test_causality_by_gradient(rows, columns, offset):
    """Exactly 0 for every key and value ahead of the query, not 0 for the others."""
    q, k, v = qkv(1, rows, columns)
    by_key, by_value = (
        np.any(np.asarray(jax.jacrev(f)(x)) != 0, axis=(1, 3))
        for f, x in (
            (lambda k: attend(q, k, v, mask=masks.causal(offset)), k),
            (lambda v: attend(q, k, v, mask=masks.causal(offset)), v),
        )
    )
    allowed = np.arange(columns) <= np.arange(rows)[:, None] + offset
    np.testing.assert_array_equal(by_value, allowed)
    np.testing.assert_array_equal(by_key, allowed & (allowed.sum(axis=1, keepdims=True) > 1))


@pytest.mark.parametrize("case", cases.NORMALIZERS, ids=lambda case: case.name)
def test_order_of_keys_does_not_matter(case, x64):
    """With their positions permuted alike; a normaliser that looked at the order would differ."""
    q, k, v = qkv(dtype="float64")
    order = np.array([3, 0, 5, 1, 4, 2])
    normalize = case.build(cases.Draw(np.random.default_rng(0), cases.Shape(5, 6), dtype="float64"))[0]
    rule = {"mask": masks.causal(1), "mods": (mods.alibi(0.3),), "normalize": normalize}
    shuffled = attend(q, k[order], v[order], key_positions=order, **rule)
    np.testing.assert_allclose(shuffled, attend(q, k, v, **rule), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", [0, 2, 4])
def test_a_chunk_of_queries_gives_the_rows_of_the_whole(start):
    """flax#5591, pytorch#108108: a cached decode must see positions, not row numbers."""
    q, k, v = qkv(rows=6)
    rule = {"mask": masks.sliding_window(3), "mods": (mods.alibi(0.3), mods.relative(jnp.arange(8.0), max_distance=5))}
    rows = jnp.arange(start, start + 2)
    chunk = attend(q[rows], k, v, query_positions=rows, **rule)
    np.testing.assert_allclose(chunk, attend(q, k, v, **rule)[rows], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("part", "case"), cases.named_parts())
def test_batch_elements_do_not_know_each_other_and_vmap_is_a_batch(part, case):
    """Another classic: the mask of batch element 0 used for all."""
    shape = cases.Shape(3, 4)
    ours = case.build(cases.Draw(np.random.default_rng(1), shape))[0]
    draw = cases.Draw(np.random.default_rng(2), shape, lead=(3,))
    q, k, v = (x.jax for x in cases.operands(draw, ours if part == "score" else None))
    f = lambda *x: attend(*x, **cases.rule_arguments(part, ours))  # noqa: E731
    batch = f(q, k, v)
    np.testing.assert_allclose(batch[1], f(q[1], k[1], v[1]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(f)(q, k, v), batch, rtol=1e-6, atol=1e-6)
    changed = f(*(x.at[2].set(9.0) for x in (q, k, v)))
    np.testing.assert_array_equal(changed[:2], batch[:2])


def test_the_same_call_gives_the_same_bits():
    """Forward and gradients, that of a learned bias included (pytorch#145208)."""
    q, k, v, bias = normal(0, (2, 17, 8), (2, 17, 8), (2, 17, 8), (17, 17))
    rule = {"mask": masks.causal(), "dropout": Dropout(jax.random.key(0), 0.2)}
    f = jax.jit(
        jax.value_and_grad(lambda *x: jnp.sum(attend(*x[:3], mods=(mods.bias(x[3]),), **rule) ** 2), (0, 1, 2, 3))
    )
    jax.tree.map(np.testing.assert_array_equal, f(q, k, v, bias), f(q, k, v, bias))
