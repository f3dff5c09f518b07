"""Feature maps as parts: mistakes, arrays that they close over, and linear attention inside a module."""

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
    ("call", "error", "message"),
    [
        (lambda: scores.features("elu"), ValueError, "feature_map: expected one of 'elu_plus_one', 'relu', 'hedgehog'"),
        (lambda: scores.features(jnp.ones((2, 2))), TypeError, "float32.2,2.* scores.random_features.directions."),
        (lambda: scores.features(scores.dot()), TypeError, "feature_map: expected one of"),
        (lambda: scores.random_features(jnp.ones(3)), ValueError, "directions: expected an array"),
        (lambda: normalizers.proportional(eps=-1.0), ValueError, "eps: expected a finite number that is not negative"),
        (lambda: normalizers.proportional(eps=jnp.ones(())), TypeError, "eps: expected a Python number"),
        (
            lambda: attend(X, X, X, score=scores.features(lambda x: x.sum())),
            ValueError,
            "return .*F. with .3,. in the place",
        ),
        (lambda: attend(X, X, X, score=scores.random_features(jnp.ones((5, 3)))), ValueError, "axis Hq to have size 4"),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.slow
def test_a_feature_map_may_close_over_traced_arrays(x64):
    """They are differentiated twice through jit, by each implementation."""
    q, k, v = (normal(n, *shape) for n, shape in enumerate([(T, K, H), (S, K, H), (S, K, E)], 7))

    def hessian(name: str) -> jax.Array:
        def f(w):
            rule = scores.features(lambda x: jnp.exp(x @ w))
            return jnp.sum(jnp.sin(attend_heads(q, k, v, score=rule, normalize=PROPORTIONAL, implementation=name)))

        return jax.jit(jax.hessian(f))(0.3 * normal(3, H, F))

    expected = hessian("reference")
    for name in ("linear_attention", "blockwise"):
        assert difference(hessian(name), expected) <= 1e-10


@pytest.mark.slow
def test_multi_head_attention_takes_the_rule():
    """Weights sum to 1 and are causal; long inputs take the O(T) memory of linear attention by default."""
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
    weights = layer.weights(x)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert jnp.all(jnp.triu(weights, 1) == 0)
    long_input = jax.ShapeDtypeStruct((1, 4096, 16), jnp.float32)
    compiled = jax.jit(lambda layer, x: layer(x)).lower(layer, long_input).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * 2**20
    np.testing.assert_allclose(layer(jnp.pad(x, ((0, 0), (0, 600), (0, 0))))[:, :6], layer(x), atol=1e-5)
