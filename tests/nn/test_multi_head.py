"""`nn.MultiHeadAttention`: rules as arguments, grouped heads, rotary, cache, dropout; systems A5 and E3."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import Dropout, cache, masks, mods, nn, normalizers, positions, scores
from tests.models import small
from tests.support.arrays import normal
from tests.support.tiers import slow, slow_except
from tests.support.tolerances import FORWARD

TOLERANCE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
X = normal(0, 2, 5, 16)


def layer(**options):
    """A layer with random parameters, made without compiling its initialisation."""
    return small.filled(lambda: nn.MultiHeadAttention(4, 16, rngs=nnx.Rngs(0), **options))


def by_hand(module, x, mask, score=lambda q, k: q @ k.T / np.sqrt(q.shape[-1])):
    """The layer in NumPy, for one example and one head at a time."""
    p = module.projections
    q, k, v = (linear(w, x).reshape(len(x), -1, 4) for w in (p.query, p.key, p.value))
    outputs = []
    for head in range(4):
        shared = head // (4 // k.shape[1])
        z = np.where(mask, score(q[:, head], k[:, shared]), -np.inf)
        w = np.exp(z - z.max(-1, keepdims=True))
        outputs.append(w / w.sum(-1, keepdims=True) @ v[:, shared])
    return linear(module.out, np.concatenate(outputs, -1))


def linear(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


@pytest.mark.parametrize("kv_heads", [*slow(1), 2, *slow(4)])
def test_heads_and_groups_against_a_loop(kv_heads):
    module = layer(kv_heads=kv_heads, mask=masks.causal())
    expected = np.stack([by_hand(module, np.asarray(x), np.tril(np.ones((5, 5), bool))) for x in X])
    found, weights = jax.jit(lambda module: (module(X), module.weights(X)))(module)
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    np.testing.assert_allclose(weights.sum(-1), np.ones((2, 4, 5)), **TOLERANCE)


RULES = {
    "cosine": {"score": scores.cosine(4.0)},
    "l2": {"score": scores.l2(0.5)},
    "additive module": {"score": lambda: nn.Additive(4, 4, 3, rngs=nnx.Rngs(1))},
    "general module": {"score": lambda: nn.General(4, 4, rngs=nnx.Rngs(1))},
    "function": {"score": lambda: lambda q, k: q @ jnp.swapaxes(k, -1, -2)},
    "alibi": {"mods": (mods.alibi(positions.alibi_slopes(4)),)},
    "learned relative": {"mods": lambda: (nn.LearnedPart(mods.relative(jnp.zeros((4, 8)), max_distance=16)),)},
    "sparsemax": {"normalize": normalizers.sparsemax()},
    "learned sinks": {"normalize": lambda: nn.LearnedPart(normalizers.softmax(sinks=jnp.zeros(4)))},
    "window": {"mask": masks.sliding_window(2)},
    "rotary": {"rope": positions.rotary(style="interleaved")},
}


QUICK = ("learned relative",)


@pytest.mark.parametrize("name", slow_except(QUICK, RULES))
def test_any_rule_trains_under_plain_jax(name):
    options = {part: make() if callable(make) and name in _FACTORIES else make for part, make in RULES[name].items()}
    module = layer(**options, kv_heads=2)
    traces = []

    @jax.jit
    def loss_and_gradient(module, x):
        traces.append(1)
        return jax.value_and_grad(lambda m: ((m(x) - x) ** 2).mean())(module)

    first, gradient = loss_and_gradient(module, X)
    module = jax.tree.map(lambda p, g: np.asarray(p) - np.float32(0.02) * np.asarray(g), module, gradient)
    second, _ = loss_and_gradient(module, X)
    assert len(traces) == 1
    assert second < first
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    per_example, whole = jax.jit(lambda module: (jax.vmap(module)(X), module(X)))(module)
    np.testing.assert_allclose(per_example, whole, **TOLERANCE)


_FACTORIES = {"additive module", "general module", "function", "learned relative", "learned sinks"}


def test_learned_parts_get_gradients_and_constants_do_not():
    slopes = mods.alibi(positions.alibi_slopes(4))
    fixed, learned = (
        nn.MultiHeadAttention(4, 16, mods=(x,), rngs=nnx.Rngs(0)) for x in (slopes, nn.LearnedPart(slopes))
    )
    assert len(jax.tree.leaves(learned)) == len(jax.tree.leaves(fixed)) + 1
    gradient = jax.jit(jax.grad(lambda m: (m(X) ** 2).sum()))(learned)
    assert (np.abs(gradient.mods[0].parameters[0][...]) > 0).all()
    run = jax.jit(lambda module: module(X))
    np.testing.assert_array_equal(run(fixed), run(learned))


def test_equal_constants_do_not_retrace():
    traces = []

    @jax.jit
    def run(module):
        traces.append(1)
        return module(X)

    for _ in range(2):
        run(layer(mods=(mods.alibi(positions.alibi_slopes(4)),), mask=masks.causal()))
    assert len(traces) == 1
    run(layer(mods=(mods.alibi(2 * positions.alibi_slopes(4)),), mask=masks.causal()))
    assert len(traces) == 2


def test_cross_attention_with_other_sizes():
    module = layer(key_size=6, value_size=7, output_size=9, head_size=3)
    keys, values = np.ones((2, 8, 6), np.float32), np.ones((2, 8, 7), np.float32)
    assert jax.eval_shape(module, X, keys, values).shape == (2, 5, 9)
    with pytest.raises(ValueError, match="key: expected an array together with value"):
        module(X, None, values)


def test_rotary_depends_on_differences_of_positions_only():
    module = layer(rope=positions.rotary(), mask=masks.causal())
    run = jax.jit(lambda query_positions: module(X, query_positions=query_positions))
    plain, query_positions = jax.jit(lambda: module(X))(), np.arange(5)
    np.testing.assert_allclose(run(query_positions + 100), plain, **TOLERANCE)
    assert np.abs(run(3 * query_positions) - plain).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("extra", [False, True])
def test_prefill_and_decode_equal_the_full_pass(extra):
    module = layer(rope=positions.rotary(), kv_heads=2, mask=masks.causal(), bias_kv=extra)

    @jax.jit
    def run(module):
        first, state = module.step(X[:, :3], cache.create(5, 2, 4, batch=(2,)))
        second, state = module.step(X[:, 3:4], state)
        third, state = module.step(X[:, 4:], state)
        return jnp.concatenate([first, second, third], 1), module(X)

    np.testing.assert_allclose(*run(module), **TOLERANCE)


def test_a_ring_cache_serves_a_window():
    module = layer(mask=masks.sliding_window(3))
    state = cache.create(3, 4, 4, batch=(2,), ring=True)
    step, outputs = jax.jit(nn.MultiHeadAttention.step), []
    for t in range(5):
        out, state = step(module, np.asarray(X)[:, t : t + 1], state)
        outputs.append(out)
    np.testing.assert_allclose(np.concatenate(outputs, 1), jax.jit(module)(X), **TOLERANCE)


def test_mask_of_the_call_joins_that_of_the_layer():
    window, modules = masks.sliding_window(2, None), (layer(mask=masks.causal()), layer())
    run = jax.jit(lambda causal, plain: (causal(X, mask=window), plain(X, mask=masks.causal() & window)))
    np.testing.assert_array_equal(*run(*modules))


def test_dropout_needs_its_rng_and_reaches_the_weights():
    dropout = Dropout(jax.random.key(1), 0.5)
    run = jax.jit(lambda module: (module.weights(X, dropout=dropout), module(X, dropout=dropout)))
    (weights, first), (_, second) = run(layer()), run(layer())
    assert 0.3 < float((np.asarray(weights) == 0).mean()) < 0.7
    np.testing.assert_array_equal(first, second)


def test_e3_width_stays_512():
    module = jax.eval_shape(lambda: nn.MultiHeadAttention(8, 512, rngs=nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct((2, 6, 512), jnp.float32)
    assert jax.eval_shape(lambda module, x: module(x), module, x).shape == (2, 6, 512)
    assert module.projections.query.kernel.shape == (512, 512)
    assert module.out.kernel.shape == (512, 512)


def test_bfloat16_in_bfloat16_out():
    module = layer(dtype=jnp.bfloat16)
    out = jax.jit(module)(X.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(out), jax.jit(layer())(X), rtol=0, atol=2**-6)


WRONG = {
    "heads": (lambda: nn.MultiHeadAttention(3, 16, rngs=nnx.Rngs(0)), "num_heads: expected a divisor of size = 16"),
    "kv_heads": (lambda: layer(kv_heads=3), "kv_heads: expected a divisor of num_heads = 4, got 3"),
    "packed": (lambda: layer(packed=True, key_size=8), "packed: expected inputs of one size"),
    "extra": (lambda: layer(bias_kv=True, normalize=normalizers.sigmoid())(X), "bias_kv: expected the softmax"),
    "learned": (lambda: nn.LearnedPart(masks.causal()), "value: expected a part with at least one float array"),
    "traced": (
        lambda: jax.jit(lambda s: layer(mods=(mods.alibi(s),))(X))(jnp.ones(4)),
        "expected known arrays to keep as constants",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()
