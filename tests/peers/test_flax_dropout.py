"""Dropout in Flax's multi-head modules: one pattern or many, and an error without a key."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from jax_attention import Dropout, attend_heads, attention_weights_heads, flax_attention_fn
from tests.support.flax_layers import CLOSE, B, N, T, X, linen_layer, linen_variables, nnx_layer, operands


def dropped_weights(**options):
    """Weights after dropout, `[B, N, T, S]`: the output for one-hot values."""
    q, k, _, _ = operands()
    one_hot = np.broadcast_to(np.eye(T, dtype=np.float32)[:, None], (B, T, N, T))
    options |= {"dropout_rate": 0.5, "dropout_rng": jax.random.key(3)}
    out = jax.jit(lambda *x: flax_attention_fn()(*x, **options))(q, k, one_hot)
    return np.swapaxes(np.asarray(out), 1, 2)


def test_dropout_keeps_or_doubles_the_weights():
    q, k, v, _ = operands()
    weights = np.asarray(jax.jit(attention_weights_heads)(q, k, v))
    dropped = dropped_weights()
    kept = dropped > 0
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], 2 * weights[kept], **CLOSE)
    np.testing.assert_allclose(dropped_weights(deterministic=True), weights, **CLOSE)


def test_broadcast_dropout_is_one_pattern():
    shared, separate = (dropped_weights(broadcast_dropout=flag) > 0 for flag in (True, False))
    assert np.all(shared == shared[:1, :1])
    patterns = {row.tobytes() for row in separate.reshape(B * N, -1)}
    assert len(patterns) == B * N


def test_dropout_is_that_of_attend_heads():
    q, k, v, _ = operands()
    rng = jax.random.key(5)
    options = {"dropout_rate": 0.3, "dropout_rng": rng, "broadcast_dropout": False}
    dropout = Dropout(rng, 0.3)
    run = jax.jit(lambda *x: (flax_attention_fn()(*x, **options), attend_heads(*x, dropout=dropout)))
    np.testing.assert_array_equal(*run(q, k, v))


def test_dropout_without_rng_is_refused():
    q, k, v, _ = operands()
    with pytest.raises(ValueError, match=r"dropout_rng: expected a key, as dropout_rate = 0\.5"):
        flax_attention_fn()(q, k, v, dropout_rate=0.5)
    flax_attention_fn()(q, k, v, dropout_rate=0.5, deterministic=True)


def test_dropout_in_linen():
    layer, variables = linen_layer(flax_attention_fn(), dropout_rate=0.5), linen_variables()

    @jax.jit
    def run(rng):
        return layer.apply(variables, X, rngs={"dropout": rng}, deterministic=False)

    first, same, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    deterministic = jax.jit(lambda x: layer.apply(variables, x, deterministic=True))(X)
    plain = jax.jit(lambda x: linen_layer(flax_attention_fn()).apply(variables, x))(X)
    np.testing.assert_array_equal(deterministic, plain)


def test_dropout_in_nnx():
    layer = nnx_layer(flax_attention_fn(), dropout_rate=0.5)

    run = nnx.jit(lambda layer, rngs: layer(X, rngs=rngs, deterministic=False))
    first, same, other = (np.asarray(run(layer, nnx.Rngs(dropout=seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    layers = layer, nnx_layer(flax_attention_fn())
    deterministic, plain = nnx.jit(lambda one, other: (one(X, deterministic=True), other(X)))(*layers)
    np.testing.assert_array_equal(deterministic, plain)
