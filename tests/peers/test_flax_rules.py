"""Any rule runs inside Flax's multi-head modules, in one pass and token by token with Flax's cache."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from jax_attention import attend_heads, flax_attention_fn, masks
from tests.support.flax_layers import (
    CAUSAL,
    CLOSE,
    PADDING,
    RULES,
    T,
    X,
    linen_layer,
    linen_variables,
    nnx_layer,
    operands,
)
from tests.support.tiers import slow_except


@pytest.mark.parametrize("name", slow_except(("window",), RULES))
def test_any_rule_inside_nnx(name):
    layer = nnx_layer(flax_attention_fn(**RULES[name]))
    rule = {**RULES[name], "mask": masks.dense(PADDING > 0)}
    if "mask" in RULES[name]:
        rule["mask"] = rule["mask"] & RULES[name]["mask"]

    @nnx.jit
    def run(layer):
        q, k, v = layer.query(X), layer.key(X), layer.value(X)
        return layer(X, mask=PADDING), layer.out(attend_heads(q, k, v, **rule))

    np.testing.assert_allclose(*run(layer), **CLOSE)


@pytest.mark.parametrize("name", slow_except(("plain functions",), RULES))
def test_any_rule_inside_linen(name):
    attention_fn = flax_attention_fn(**RULES[name])

    @jax.jit
    def run(variables):
        results = {}

        @functools.wraps(attention_fn)  # Flax filters its keywords by the signature
        def recorded(query, key, value, **options):
            results["expected"] = attend_heads(query, key, value, **RULES[name])
            results["out"] = attention_fn(query, key, value, **options)
            return results["out"]

        linen_layer(recorded).apply(variables, X)
        return results["out"], results["expected"]

    np.testing.assert_allclose(*run(linen_variables()), **CLOSE)


def test_empty_rows_are_zero():
    """Before the output projection an empty row is 0, where Flax has the mean of all values (flax#982)."""
    q, k, v, _ = operands()
    out = flax_attention_fn()(q, k, v, mask=np.zeros((1, 1, T, T)))
    assert np.all(np.asarray(out) == 0)


# --- cached decoding


@pytest.mark.parametrize("name", slow_except(("window",), RULES))
def test_decode_linen(name):
    """Token by token with Flax's cache equals the causal pass, also for rules with positions (flax#5591)."""
    variables = linen_variables()
    whole = linen_layer(flax_attention_fn(**RULES[name]))
    full = jax.jit(lambda *x: whole.apply(*x, mask=CAUSAL))(variables, X)
    layer = linen_layer(flax_attention_fn(**RULES[name], decode=True), decode=True)
    # A cache begins with zeros.
    empty = jax.eval_shape(layer.init, jax.random.key(0), X)["cache"]
    cache = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), empty)
    step = jax.jit(lambda cache, x: layer.apply({**variables, "cache": cache}, x, mutable=["cache"]))
    steps = []
    for t in range(T):
        out, updated = step(cache, X[:, t : t + 1])
        cache = updated["cache"]
        steps.append(out)
    np.testing.assert_allclose(np.concatenate(steps, axis=1), full, **CLOSE)


def test_one_query_under_a_rule_with_positions_needs_decode():
    q, k, v, _ = operands()
    with pytest.raises(ValueError, match=r"decode: expected True or False where one query meets \d+ keys"):
        flax_attention_fn(mask=masks.causal())(q[:, :1], k, v)
    first = flax_attention_fn(mask=masks.causal(), decode=False)
    run = jax.jit(lambda q, k, v: (first(q, k, v), attend_heads(q, k, v, mask=masks.causal())))
    np.testing.assert_allclose(*run(q[:, :1], k, v), **CLOSE)
    with pytest.raises(ValueError, match="mask: expected Flax's mask of the filled slots, as decode=True, got None"):
        flax_attention_fn(mask=masks.causal(), decode=True)(q[:, :1], k, v)


@pytest.mark.parametrize("name", slow_except(("alibi",), RULES))
def test_decode_nnx(name):
    layer = nnx_layer(flax_attention_fn(**RULES[name], decode=True), num_kv_heads=1)
    full = nnx.jit(lambda layer: layer(X, is_causal=True))(layer)
    layer.init_cache(X.shape)
    step = nnx.jit(lambda layer, x: layer(x, decode=True))
    steps = [step(layer, X[:, t : t + 1]) for t in range(T)]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), full, **CLOSE)
