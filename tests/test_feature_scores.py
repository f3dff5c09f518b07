"""Feature maps as values: mistakes, arrays that they close over, and the rule inside a module."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import attend, attend_heads, masks, nn, normalizers, scores
from tests.support.arrays import difference, normal

B, T, S, N, K, H, E, F = 2, 9, 7, 4, 2, 3, 2, 5
X = jnp.ones((3, 4))
PROPORTIONAL = normalizers.proportional()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: scores.features("elu"), ValueError, "feature_map: expected one of 'elu_plus_one', 'relu', 'hedgehog'"),
        (lambda: scores.features(jnp.ones((2, 2))), TypeError, "float32.2,2.* scores.random_features.directions."),
        (lambda: scores.features(scores.dot()), TypeError, "feature_map: expected one of"),
        (lambda: scores.random_features(jnp.ones(3)), ValueError, "directions: expected an array"),
        (lambda: normalizers.proportional(eps=-1.0), ValueError, "eps: expected a finite number that is not negative"),
        (lambda: normalizers.proportional(eps=jnp.ones(())), TypeError, "eps: expected a Python number"),
        (lambda: attend(X, X, X, score=scores.features(lambda x: x.sum())), ValueError, "return .*F. with the leading"),
        (lambda: attend(X, X, X, score=scores.random_features(jnp.ones((5, 3)))), ValueError, "axis Hq to have size 4"),
    ],
)
def test_mistakes(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.slow
def test_a_feature_map_may_close_over_traced_arrays(x64):
    """Differentiated through jit, in every evaluation."""
    q, k, v = (normal(n, *shape) for n, shape in enumerate([(T, K, H), (S, K, H), (S, K, E)], 7))

    def gradient(name: str) -> jax.Array:
        def f(w):
            rule = scores.features(lambda x: jnp.exp(x @ w))
            return jnp.sum(jnp.sin(attend_heads(q, k, v, score=rule, normalize=PROPORTIONAL, implementation=name)))

        return jax.jit(jax.hessian(f))(0.3 * normal(3, H, F))

    expected = gradient("reference")
    for name in ("linear_attention", "blockwise"):
        assert difference(gradient(name), expected) <= 1e-10


@pytest.mark.slow
def test_multi_head_attention_takes_the_rule():
    """By value, with a rotary-free cache too; long inputs take O(T) time by themselves."""
    layer = nn.MultiHeadAttention(
        4,
        16,
        kv_heads=2,
        score=scores.features("elu_plus_one"),
        normalize=PROPORTIONAL,
        mask=masks.causal(),
        rngs=nnx.Rngs(0),
    )
    x = normal(0, 2, 6, 16)
    heads = layer.weights(x)
    np.testing.assert_allclose(heads.sum(-1), 1, rtol=1e-5)
    assert jnp.all(jnp.triu(heads, 1) == 0)
    long = jax.ShapeDtypeStruct((1, 4096, 16), jnp.float32)
    run = jax.jit(lambda layer, x: layer(x)).lower(layer, long).compile()
    assert run.memory_analysis().temp_size_in_bytes < 16 * 2**20
    np.testing.assert_allclose(layer(jnp.pad(x, ((0, 0), (0, 600), (0, 0))))[:, :6], layer(x), atol=1e-5)
