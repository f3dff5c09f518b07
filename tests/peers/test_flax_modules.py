"""`flax_attention_fn` inside Flax's own multi-head modules, Linen and NNX: the same results as theirs, or our rule's.

Every keyword that Flax hands over must change what it should; what cannot be honoured is refused.
"""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jax_attention import (
    Dropout,
    attend_heads,
    attention_weights_heads,
    flax_attention_fn,
    masks,
    mods,
    normalizers,
    positions,
)
from tests.tolerances import FORWARD, GRADIENT

B, T, N, D = 2, 5, 2, 8
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
LENGTHS = np.arange(T)[None] < np.array([[T], [3]])
CAUSAL = linen.make_causal_mask(LENGTHS)
PADDING = linen.make_attention_mask(np.ones((B, T)), LENGTHS)
MASKS = {
    "none": None,
    "causal, float": CAUSAL,
    "causal, bool": CAUSAL.astype(bool),
    "padding": PADDING,
    "both": linen.combine_masks(CAUSAL, PADDING),
    "per head": np.arange(N)[:, None, None] + np.arange(T)[:, None] >= np.arange(T),
}
RULES = {
    "default": {},
    "entmax": {"normalize": normalizers.entmax15()},
    "alibi": {"mods": (mods.alibi(positions.alibi_slopes(N)),)},
    "window": {"mask": masks.sliding_window(2)},
    "plain functions": {"mods": (lambda s, q, k: jnp.tanh(s),), "mask": lambda q, k: k != q - 1},
}
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def linen_layer(attention_fn=linen.dot_product_attention, **options):
    return linen.MultiHeadDotProductAttention(num_heads=N, attention_fn=attention_fn, **options)


@functools.cache
def linen_variables():
    return linen_layer(bias_init=linen.initializers.normal()).init(jax.random.key(0), X)


def nnx_layer(attention_fn=nnx.dot_product_attention, **options):
    """The same parameters at every call."""
    return nnx.MultiHeadAttention(N, D, attention_fn=attention_fn, rngs=nnx.Rngs(0), **{"decode": False, **options})


def output_and_gradients(run, *inputs):
    """Of a nonlinear function of the output, by all inputs."""

    def loss(*inputs):
        out = run(*inputs)
        return jnp.sum(jnp.sin(out)), out

    (_, out), gradients = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(inputs))), has_aux=True))(*inputs)
    return out, gradients


def assert_same(ours, theirs):
    (out, gradients), (expected, expected_gradients) = ours, theirs
    assert out.dtype == expected.dtype
    np.testing.assert_allclose(out, expected, **CLOSE)
    tolerance = GRADIENT["float32"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), gradients, expected_gradients
    )


# --- the default rule is theirs


@pytest.mark.parametrize("theirs", [linen.dot_product_attention, nnx.dot_product_attention])
def test_every_parameter_of_flax_exists(theirs):
    """By name and default; up to `module` also in their order, for positional callers."""
    ours, known = (inspect.signature(f).parameters for f in (flax_attention_fn(), theirs))
    assert set(known) <= set(ours)
    assert list(ours)[:12] == list(known)[:12]
    assert list(ours)[11] == "module"
    for name in set(known) - {"promote_dtype"}:  # a function there, None here: Flax is not imported
        assert ours[name].default == known[name].default, name


@pytest.mark.parametrize("name", MASKS)
def test_linen_equals_flax(name):
    ours, theirs = (
        output_and_gradients(lambda v, x, f=f: linen_layer(f).apply(v, x, mask=MASKS[name]), linen_variables(), X)
        for f in (flax_attention_fn(), linen.dot_product_attention)
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("name", "options", "call"),
    [
        *((name, {}, {}) for name in MASKS),
        ("none", {}, {"is_causal": True}),
        ("padding", {}, {"is_causal": True}),
        ("both", {"num_kv_heads": 1, "normalize_qk": True}, {}),  # grouped queries
    ],
)
def test_nnx_equals_flax(name, options, call):
    results = []
    for attention_fn in (flax_attention_fn(), nnx.dot_product_attention):
        graph, state = nnx.split(nnx_layer(attention_fn, **options))

        def run(state, x, graph=graph):
            return nnx.merge(graph, state)(x, mask=MASKS[name], **call)

        results.append(output_and_gradients(run, state, X))
    assert_same(*results)


def test_linen_cross_attention():
    x = X[:, :3] + 1
    ours, theirs = (
        linen_layer(f).apply(linen_variables(), x, X, X * 2, mask=PADDING[:, :, :3])
        for f in (flax_attention_fn(), linen.dot_product_attention)
    )
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("theirs", [linen.dot_product_attention, nnx.dot_product_attention])
@pytest.mark.parametrize("masked", [False, True])
def test_bias(theirs, masked):
    """No module passes one, but callers of the function do."""
    q, k, v, bias = operands()
    mask = CAUSAL if masked else None
    ours, expected = (
        output_and_gradients(lambda q, k, v, b, f=f: f(q, k, v, b, mask), q, k, v, bias)
        for f in (flax_attention_fn(), theirs)
    )
    assert_same(ours, expected)


def operands():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(B, T, N, 4)).astype(np.float32) for _ in range(3)]
    return *arrays, rng.normal(size=(1, N, T, T)).astype(np.float32)


# --- any rule runs inside


@pytest.mark.parametrize("name", RULES)
def test_any_rule_inside_nnx(name):
    layer = nnx_layer(flax_attention_fn(**RULES[name]))
    q, k, v = layer.query(X), layer.key(X), layer.value(X)
    rule = {**RULES[name], "mask": masks.dense(PADDING > 0)}
    if "mask" in RULES[name]:
        rule["mask"] = rule["mask"] & RULES[name]["mask"]
    np.testing.assert_allclose(layer(X, mask=PADDING), layer.out(attend_heads(q, k, v, **rule)), **CLOSE)


@pytest.mark.parametrize("name", RULES)
def test_any_rule_inside_linen(name):
    inside = flax_attention_fn(**RULES[name])
    seen = {}

    @functools.wraps(inside)  # Flax filters its keywords by the signature
    def recorded(query, key, value, **options):
        seen["expected"] = attend_heads(query, key, value, **RULES[name])
        seen["out"] = inside(query, key, value, **options)
        return seen["out"]

    linen_layer(recorded).apply(linen_variables(), X)
    np.testing.assert_allclose(seen["out"], seen["expected"], **CLOSE)


def test_empty_rows_are_zero():
    """flax#982: theirs is the mean of all values; ours 0 before the output projection."""
    q, k, v, _ = operands()
    out = flax_attention_fn()(q, k, v, mask=jnp.zeros((1, 1, T, T)))
    assert np.all(np.asarray(out) == 0)


# --- cached decoding


@pytest.mark.parametrize("name", RULES)
def test_decode_linen(name):
    """flax#5591: token by token through Flax's cache equals the causal pass, also for rules that see positions."""
    variables = linen_variables()
    full = linen_layer(flax_attention_fn(**RULES[name])).apply(variables, X, mask=CAUSAL)
    layer = linen_layer(flax_attention_fn(**RULES[name], decode=True), decode=True)
    cache = layer.init(jax.random.key(0), X)["cache"]
    step = jax.jit(lambda cache, x: layer.apply({**variables, "cache": cache}, x, mutable=["cache"]))
    steps = []
    for t in range(T):
        out, updated = step(cache, X[:, t : t + 1])
        cache = updated["cache"]
        steps.append(out)
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), full, **CLOSE)


def test_one_query_under_a_rule_with_positions_must_say_where_it_stands():
    q, k, v, _ = operands()
    with pytest.raises(ValueError, match=r"decode: expected True or False where one query meets \d+ keys"):
        flax_attention_fn(mask=masks.causal())(q[:, :1], k, v)
    first = flax_attention_fn(mask=masks.causal(), decode=False)(q[:, :1], k, v)
    np.testing.assert_allclose(first, attend_heads(q[:, :1], k, v, mask=masks.causal()), **CLOSE)
    with pytest.raises(ValueError, match="mask: expected Flax's mask of the filled slots, as decode=True, got None"):
        flax_attention_fn(mask=masks.causal(), decode=True)(q[:, :1], k, v)


@pytest.mark.parametrize("name", RULES)
def test_decode_nnx(name):
    layer = nnx_layer(flax_attention_fn(**RULES[name], decode=True), num_kv_heads=1)
    full = layer(X, is_causal=True)
    layer.init_cache(X.shape)
    step = nnx.jit(lambda layer, x: layer(x, decode=True))
    steps = [step(layer, X[:, t : t + 1]) for t in range(T)]
    np.testing.assert_allclose(jnp.concatenate(steps, axis=1), full, **CLOSE)


# --- dropout


def dropped_weights(**options):
    """With one-hot values the output is the weights, `[B, N, T, S]`."""
    q, k, _, _ = operands()
    one_hot = jnp.broadcast_to(jnp.eye(T)[:, None], (B, T, N, T))
    out = flax_attention_fn()(q, k, one_hot, dropout_rate=0.5, dropout_rng=jax.random.key(3), **options)
    return np.asarray(jnp.swapaxes(out, 1, 2))


def test_dropout_keeps_or_doubles_the_weights():
    q, k, v, _ = operands()
    weights = np.asarray(attention_weights_heads(q, k, v))
    dropped = dropped_weights()
    kept = dropped > 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], 2 * weights[kept], **CLOSE)
    np.testing.assert_allclose(dropped_weights(deterministic=True), weights, **CLOSE)


def test_broadcast_dropout_is_one_pattern():
    shared, own = (dropped_weights(broadcast_dropout=flag) > 0 for flag in (True, False))
    assert np.all(shared == shared[:1, :1])
    patterns = {row.tobytes() for row in own.reshape(B * N, -1)}
    assert len(patterns) == B * N


def test_dropout_is_that_of_attend_heads():
    q, k, v, _ = operands()
    rng = jax.random.key(5)
    ours = flax_attention_fn()(q, k, v, dropout_rate=0.3, dropout_rng=rng, broadcast_dropout=False)
    np.testing.assert_array_equal(ours, attend_heads(q, k, v, dropout=Dropout(rng, 0.3)))


def test_dropout_without_rng_is_refused():
    q, k, v, _ = operands()
    with pytest.raises(ValueError, match=r"dropout_rng: expected a key, as dropout_rate = 0\.5"):
        flax_attention_fn()(q, k, v, dropout_rate=0.5)
    flax_attention_fn()(q, k, v, dropout_rate=0.5, deterministic=True)


def test_dropout_in_linen():
    layer = linen_layer(flax_attention_fn(), dropout_rate=0.5)

    def run(seed=None, **options):
        rngs = None if seed is None else {"dropout": jax.random.key(seed)}
        return np.asarray(layer.apply(linen_variables(), X, rngs=rngs, **options))

    np.testing.assert_array_equal(run(1, deterministic=False), run(1, deterministic=False))
    assert not np.allclose(run(1, deterministic=False), run(2, deterministic=False))
    np.testing.assert_array_equal(run(deterministic=True), linen_layer(flax_attention_fn()).apply(linen_variables(), X))


def test_dropout_in_nnx():
    layer = nnx_layer(flax_attention_fn(), dropout_rate=0.5)

    def run(seed):
        return np.asarray(layer(X, rngs=nnx.Rngs(dropout=seed), deterministic=False))

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1), run(2))
    np.testing.assert_array_equal(layer(X, deterministic=True), nnx_layer(flax_attention_fn())(X))


# --- precision, dtype, weights, einsums


def products(function, *inputs) -> list:
    """The precision of every matrix product in the program, nested ones included."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for inner in equation.params.values():
                if hasattr(inner, "jaxpr"):
                    yield from walk(inner.jaxpr)

    return list(walk(jax.make_jaxpr(function)(*inputs).jaxpr))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_precision_is_honoured(kind):
    """flax#4008: a flag that is accepted and never used. (Flax's NNX function drops it when there is no dropout.)"""
    highest = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)

    def found(precision):
        if kind == "linen":
            layer = linen_layer(flax_attention_fn(), precision=precision)
            return products(lambda x: layer.apply(linen_variables(), x), X)
        return products(nnx_layer(flax_attention_fn(), precision=precision), X)

    assert found(jax.lax.Precision.HIGHEST) == [highest] * 6
    assert found("highest") == [highest] * 6
    assert highest not in found(None)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_dtype_is_honoured(kind, dtype):
    """The result has it, and differs from Flax by a few roundings of it."""
    flax = linen.dot_product_attention if kind == "linen" else nnx.dot_product_attention
    ours, theirs = (
        linen_layer(f, dtype=dtype).apply(linen_variables(), X, mask=CAUSAL)
        if kind == "linen"
        else nnx_layer(f, dtype=dtype)(X, mask=CAUSAL)
        for f in (flax_attention_fn(), flax)
    )
    assert ours.dtype == theirs.dtype == dtype
    step = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(ours.astype(jnp.float32), theirs.astype(jnp.float32), rtol=step, atol=step)


def test_dtype_of_the_function():
    q, k, v, _ = operands()
    narrow = (jnp.asarray(x, jnp.bfloat16) for x in (q, k, v))
    expected = flax_attention_fn()(*narrow)
    for promote in (None, nnx.nn.dtypes.promote_dtype):
        out = flax_attention_fn()(q, k, v, dtype=jnp.bfloat16, promote_dtype=promote)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_array_equal(out.astype(jnp.float32), expected.astype(jnp.float32))


def sown_by(layer, **options):
    """The attention weights that an NNX layer sows."""
    run = nnx.capture(nnx.Intermediate)(lambda layer: layer(X, sow_weights=True, **options))
    (weights,) = run(layer)[1]["attention_weights"]
    return weights


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_sown_weights(rate):
    """flax#4744. They are the weights before dropout, as in Flax, and asking leaves the output as it is."""
    found = []
    for linen_fn, nnx_fn in (
        (flax_attention_fn(), flax_attention_fn()),
        (linen.dot_product_attention, nnx.dot_product_attention),
    ):
        options = {"deterministic": False} if rate else {}
        layer = linen_layer(linen_fn, dropout_rate=rate)
        rngs = {"dropout": jax.random.key(0)}
        call = functools.partial(layer.apply, linen_variables(), X, mask=CAUSAL, rngs=rngs, **options)
        out, sown = call(sow_weights=True, mutable=["intermediates"])
        np.testing.assert_allclose(out, call(), **CLOSE)
        (from_linen,) = sown["intermediates"]["attention_weights"]
        found.append((from_linen, sown_by(nnx_layer(nnx_fn, dropout_rate=rate), mask=CAUSAL, **options)))
    (ours_linen, ours_nnx), (theirs_linen, theirs_nnx) = found
    np.testing.assert_allclose(ours_linen, theirs_linen, **CLOSE)
    np.testing.assert_allclose(ours_nnx, theirs_nnx, **CLOSE)


def test_sown_weights_are_those_of_the_rule():
    rule = RULES["entmax"]
    layer = nnx_layer(flax_attention_fn(**rule))
    expected = attention_weights_heads(*(projection(X) for projection in (layer.query, layer.key, layer.value)), **rule)
    np.testing.assert_allclose(sown_by(layer), expected, **CLOSE)


@pytest.mark.parametrize("name", ["einsum_dot_general", "qk_attn_weights_einsum", "attn_weights_value_einsum"])
def test_custom_products_are_refused(name):
    q, k, v, _ = operands()
    with pytest.raises(ValueError, match=f"{name}: expected None, got .*Write the product into a score"):
        flax_attention_fn()(q, k, v, **{name: jnp.einsum})


def test_custom_einsum_classes_are_refused_inside_linen():
    classes = {"qk_attn_weights_einsum_cls": lambda: jnp.einsum, "attn_weights_value_einsum_cls": lambda: jnp.einsum}
    with pytest.raises(ValueError, match="qk_attn_weights_einsum: expected None"):
        linen_layer(flax_attention_fn(), **classes).apply(linen_variables(), X)


def test_force_fp32_is_always_on():
    options = {"dtype": jnp.bfloat16}
    forced, default = (
        linen_layer(flax_attention_fn(), force_fp32_for_softmax=flag, **options).apply(linen_variables(), X)
        for flag in (True, False)
    )
    np.testing.assert_array_equal(forced.astype(jnp.float32), default.astype(jnp.float32))


def test_short_mask_is_refused():
    """flax#4505: an error that says what to do."""
    with pytest.raises(ValueError, match=r"A \[B, S\] padding mask is mask\[:, None, None, :\]"):
        linen_layer(flax_attention_fn()).apply(linen_variables(), X, mask=LENGTHS)
