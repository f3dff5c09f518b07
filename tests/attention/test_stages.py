"""Order of the stages: score, mods from left to right, mask, normalize, dropout, combine. Statistics change no bit."""

from __future__ import annotations

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
)
from tests.support.arrays import query_key_value
from tests.support.tiers import slow


def test_order_of_the_stages():
    """Each stage records its name, and the output equals the formula written out."""
    q, k, v = query_key_value()
    stages = []

    def stage(name, f):
        def call(*args):
            stages.append(name)
            return f(*args)

        return call

    dropout = Dropout(jax.random.key(3), 0.4)
    output = attend(
        q,
        k,
        v,
        score=stage("score", lambda q, k: q @ k.T),
        mods=(stage("first", lambda z, q, k: z + 1.0), stage("second", lambda z, q, k: z * 3.0)),
        mask=stage("mask", lambda q, k: k <= q),
        normalize=stage("normalize", lambda z, where: jnp.where(where, z, 5.0) / 7.0),
        dropout=dropout,
    )
    assert [name for name in stages if name != "mask"] == ["score", "first", "second", "normalize"]
    rows, columns = jnp.arange(5)[:, None], jnp.arange(6)[None]
    weights = jnp.where(columns <= rows, (q @ k.T + 1.0) * 3.0 / 7.0, 0)
    expected = dropout(weights, rows, columns) @ v
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_soft_cap_and_bias_do_not_commute():
    q, k, v = query_key_value()
    bias, cap = mods.bias(jnp.full((5, 6), 3.0).at[:, 0].set(0.0)), mods.soft_cap(1.0)
    z = q @ k.T / 2
    for chain, expected in (((bias, cap), jnp.tanh(z + bias.array)), ((cap, bias), jnp.tanh(z) + bias.array)):
        actual = attention_weights(q, k, v, mods=chain)
        np.testing.assert_allclose(actual, jax.nn.softmax(expected, axis=-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        *slow({"mask": masks.causal(-1), "mods": (mods.alibi(0.2),)}),
        {"normalize": normalizers.softmax(0.5), "dropout": Dropout(jax.random.key(1), 0.3)},
        *slow({"normalize": normalizers.entmax15()}),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [*slow("float32"), "bfloat16"])
def test_statistics_change_no_bit(rule, dtype):
    """In transformers#33996 and flax#4744, a request for the weights changed the output."""
    q, k, v = query_key_value(dtype=dtype)
    heads = [jnp.stack([x, x + 1], axis=-2) for x in (q, k, v)]
    for compile_ in (lambda f: f, jax.jit):
        plain = compile_(lambda *x: attend(*x, **rule))(q, k, v)
        np.testing.assert_array_equal(compile_(lambda *x: attend_with_stats(*x, **rule).output)(q, k, v), plain)
    several = attend_heads(*heads, **rule)
    np.testing.assert_array_equal(attend_with_stats_heads(*heads, **rule).output, several)
