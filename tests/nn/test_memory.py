"""Cross-attention in two steps: `project_memory` and `cross_attend` equal one call, in every kind of layer."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from jax_attention import masks, mods, nn, normalizers, positions
from jax_attention.cache import EMPTY
from jax_attention.dropout import Dropout
from tests.models import small
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD

S, T, D = 5, 4, 12
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
RNG = np.random.default_rng(0)


def rms_norm(size):
    return nnx.RMSNorm(size, rngs=nnx.Rngs(1))


LAYERS = {
    "separate, other sizes": {"key_size": 7, "value_size": 9},
    "packed, groups, rotary": {"packed": True, "kv_heads": 1, "rope": positions.rotary(size=2)},
    "norms on heads, no biases": {"head_norm": rms_norm, "use_bias": False},
    "norms over all heads, another rule": {
        "head_norm": rms_norm,
        "norm_all_heads": True,
        "mods": (mods.soft_cap(2.0),),
        "normalize": normalizers.sparsemax(),
    },
    "bias_kv": {"bias_kv": True},
}


def numbers(*shape):
    return np.float32(RNG.standard_normal(shape))


def layer_of(name):
    return small.filled(lambda: nn.MultiHeadAttention(3, D, rngs=nnx.Rngs(0), **LAYERS[name]))


@pytest.mark.parametrize("name", slow_except(("separate, other sizes", "norms over all heads, another rule"), LAYERS))
def test_cross_attention_to_a_projected_memory_equals_the_call(name):
    layer = layer_of(name)
    sizes = (LAYERS[name].get("key_size", D), LAYERS[name].get("value_size", D))
    query, key, value = numbers(2, T, D), numbers(2, S, sizes[0]), numbers(2, S, sizes[1])
    query_positions = {"query_positions": np.arange(T) + 3}

    @jax.jit
    def run(layer):
        memory = layer.project_memory(key, value)
        with_positions = layer.project_memory(key, value, positions=np.arange(S))
        return (
            layer(query, key, value, **query_positions),
            layer.cross_attend(query, memory, **query_positions),
            layer.cross_attend(query, with_positions, **query_positions),
            layer.weights(query, key, value, mods=mods.temperature(2.0)),
            layer.cross_attention_weights(query, memory, mods=mods.temperature(2.0)),
        )

    expected, output, output_with_positions, expected_weights, weights = run(layer)
    np.testing.assert_allclose(output, expected, **CLOSE)
    np.testing.assert_allclose(output_with_positions, expected, **CLOSE)
    np.testing.assert_allclose(weights, expected_weights, **CLOSE)


def test_value_is_the_key_by_default():
    layer = layer_of("packed, groups, rotary")
    query, key = numbers(T, D), numbers(S, D)
    run = jax.jit(lambda layer: (layer.cross_attend(query, layer.project_memory(key)), layer(query, key)))
    np.testing.assert_allclose(*run(layer), **CLOSE)


@pytest.mark.parametrize("name", [*slow("packed, groups, rotary"), "bias_kv"])
def test_no_query_attends_to_padding_even_if_it_is_nan(name):
    layer = layer_of(name)
    query, key = numbers(2, T, D), numbers(2, S, D)
    key_positions = np.array([[0, 1, 2, EMPTY, EMPTY], [EMPTY, 0, 1, 2, 3]])
    with_nan = np.where((key_positions == EMPTY)[..., None], np.float32(np.nan), key)

    @jax.jit
    def run(layer):
        return (
            layer.cross_attend(query, layer.project_memory(with_nan, positions=key_positions)),
            layer.cross_attend(query[0], layer.project_memory(key[0, :3])),
            layer.cross_attend(query[1], layer.project_memory(key[1, 1:])),
        )

    found, first, second = run(layer)
    np.testing.assert_allclose(found[0], first, **CLOSE)
    np.testing.assert_allclose(found[1], second, **CLOSE)


def test_one_memory_for_many_queries():
    """Batch dimensions of a memory broadcast: samples and beams share it."""
    layer = layer_of("packed, groups, rotary")
    query, key = numbers(3, 2, T, D), numbers(2, S, D)

    @jax.jit
    def run(layer):
        memory = layer.project_memory(key, positions=np.arange(S))
        return layer.cross_attend(query, memory), [layer.cross_attend(x, memory) for x in query]

    found, single = run(layer)
    np.testing.assert_allclose(found, single, **CLOSE)


def test_masks_and_dropout_of_the_call():
    layer = layer_of("bias_kv")
    query, key = numbers(T, D), numbers(S, D)
    options = {"mask": masks.causal(), "query_positions": np.arange(T), "dropout": Dropout(jax.random.key(0), 0.5)}
    run = jax.jit(
        lambda layer: (layer.cross_attend(query, layer.project_memory(key), **options), layer(query, key, **options))
    )
    np.testing.assert_allclose(*run(layer), **CLOSE)


def test_frequencies_that_change_with_the_length_are_refused():
    scaling = positions.dynamic_scaling(2.0, 4)
    rope = positions.rotary(scaling=scaling)
    layer = small.filled(lambda: nn.MultiHeadAttention(3, D, rope=rope, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"rope: expected frequencies that do not change with the length"):
        layer.project_memory(numbers(S, D))
