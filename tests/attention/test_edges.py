"""Mistakes that could go unnoticed: a part passed as another part, a cache too small, an ignored argument."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import (
    attend,
    attend_heads,
    attend_with_stats,
    attention_weights,
    cache,
    explain,
    flax_attention_fn,
    masks,
    merge_partials,
    mods,
    nn,
    normalizers,
    positions,
    scores,
)
from tests.support.arrays import normal
from tests.support.tolerances import FORWARD

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
X = normal(0, 3, 4)
SEQUENCE = normal(1, 2, 6, 16)

WRONG_PART = {
    "score=normalizer": (lambda: attend(X, X, X, score=normalizers.softmax()), "score: .* belongs to normalize="),
    "score=mask": (lambda: attend(X, X, X, score=masks.causal()), "score: .*causal.* belongs to mask="),
    "normalize=mask": (lambda: attend(X, X, X, normalize=masks.causal()), "normalize: .* belongs to mask="),
    "normalize=score": (lambda: attend(X, X, X, normalize=scores.dot()), "normalize: .* belongs to score="),
    "mods=mask": (lambda: attend(X, X, X, mods=(masks.causal(),)), "mods: .* belongs to mask="),
    "mask=mod": (lambda: attend(X, X, X, mask=mods.alibi(1.0)), "mask: .* belongs to mods="),
    "mask & mod": (lambda: masks.causal() & mods.alibi(1.0), "mask: .* belongs to mods="),
    "jax.nn.softmax": (lambda: attend(X, X, X, normalize=jax.nn.softmax), r"use normalizers.softmax\(\)"),
    "module": (lambda: attend(X, X, X, score=nn.General(4, 4, rngs=nnx.Rngs(0))), r"module.as_score\(\)"),
    "rope": (lambda: layer(rope=positions.rotary), r"rope: expected positions\.rotary"),
}


def layer(**options):
    return nn.MultiHeadAttention(4, 16, kv_heads=2, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("name", WRONG_PART)
def test_a_part_in_the_place_of_another_is_refused(name):
    call, message = WRONG_PART[name]
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("mask", [None, masks.dilated(2), masks.sliding_window(4, None)], ids=repr)
def test_a_cached_step_ignores_slots_that_are_not_yet_written(mask):
    module, memory = layer(), cache.create(12, 2, 4, batch=(2,))
    outputs = nnx.jit(lambda module, memory: (module.step(SEQUENCE, memory, mask=mask)[0], module(SEQUENCE, mask=mask)))
    np.testing.assert_allclose(*outputs(module, memory), **CLOSE)


@pytest.mark.parametrize(
    ("mask", "capacity", "rows"), [(masks.sliding_window(3), 3, 2), (masks.causal(), 3, 1), (None, 6, 1)], ids=repr
)
def test_a_ring_that_overwrites_too_early_is_refused(mask, capacity, rows):
    memory = cache.create(capacity, 2, 4, batch=(2,), ring=True)
    with pytest.raises(ValueError, match="cache: expected a ring with at least window"):
        layer(mask=mask).step(SEQUENCE[:, :rows], memory)


@pytest.mark.parametrize("mask", [masks.sliding_window(3), masks.chunked(3) & masks.causal()], ids=repr)
def test_a_ring_just_large_enough_is_exact(mask):
    module, memory = layer(mask=mask), cache.create(4, 2, 4, batch=(2,), ring=True)
    step = nnx.jit(lambda module, memory, x: module.step(x, memory))
    outputs = []
    for start in (0, 2, 4):
        out, memory = step(module, memory, SEQUENCE[:, start : start + 2])
        outputs.append(out)
    np.testing.assert_allclose(np.concatenate(outputs, 1), nnx.jit(lambda module: module(SEQUENCE))(module), **CLOSE)


def test_overflow_by_a_single_row_under_jit_is_nan():
    full = cache.append(cache.create(3, 1, 4), X[:, None], X[:, None])
    more = jax.jit(cache.append)(full, X[:1, None], X[:1, None])
    assert jnp.isnan(more.key[-1]).all()
    assert jnp.isnan(more.value[-1]).all()


PER_BATCH = {
    "prefix": lambda: masks.prefix(jnp.array([1, 2])),
    "keys of segments": lambda: masks.segments(jnp.zeros(5, jnp.int32), jnp.zeros((2, 5), jnp.int32)),
    "queries of segments": lambda: masks.segments(jnp.zeros((2, 5), jnp.int32), jnp.zeros(5, jnp.int32)),
}


@pytest.mark.parametrize("name", PER_BATCH)
def test_sequence_data_of_a_batch_is_not_read_as_data_of_heads(name):
    q = jnp.ones((2, 5, 2, 4))
    with pytest.raises(ValueError, match="expected no batch dimension or all of the scores' batch dimensions"):
        attend_heads(q, q, q, mask=PER_BATCH[name]())


def test_merge_partials_checks_shapes_and_takes_whole_results():
    def outputs(x):
        partials = [attend_with_stats(x, x[block], x[block]) for block in (slice(1), slice(1, 3))]
        return merge_partials(*partials).output, attend_with_stats(x, x, x).output

    np.testing.assert_allclose(*jax.jit(outputs)(X), **CLOSE)
    heads_first = (jnp.ones((2, 1, 4, 8)), jnp.ones((2, 4, 1)))
    with pytest.raises(ValueError, match=r"partials\[0\]: expected logsumexp"):
        merge_partials(heads_first, heads_first)


def test_dynamic_rope_uses_one_length_for_queries_and_keys():
    module = layer(rope=positions.rotary(scaling=positions.dynamic_scaling(4.0, 3)))
    outputs = nnx.jit(lambda module: (module(SEQUENCE[:, :2], SEQUENCE), module(SEQUENCE)[:, :2]))
    np.testing.assert_allclose(*outputs(module), **CLOSE)


@pytest.mark.parametrize("ring", [False, True])
def test_dynamic_rope_turns_the_keys_of_a_cache_with_the_length(ring):
    """transformers#25104: keys kept the rotation of the length at which they came.

    The rows of the second sequence begin with padding, so that the lengths differ. The layer is the first one of a
    model, so every step equals the full pass at that length, beyond the original one of 3 too.
    """
    module = layer(rope=positions.rotary(scaling=positions.dynamic_scaling(4.0, 3)))
    rows = jnp.array([[0, 1, 2, 3, 4, 5], [cache.EMPTY, cache.EMPTY, 0, 1, 2, 3]])
    mask = masks.causal() & masks.sliding_window(4)

    @nnx.jit
    def both(module):
        steps, weights, state = [], [], cache.create(5 if ring else 6, 2, 4, batch=(2,), ring=ring)
        for new in (slice(0, 2), *(slice(t, t + 1) for t in range(2, 6))):
            options = dict(mask=mask, positions=rows[:, new])
            weights.append(module.step_weights(SEQUENCE[:, new], state, **options)[:, :, -1].sum())
            output, state = module.step(SEQUENCE[:, new], state, **options)
            steps.append(output[:, -1])
        full = [module(SEQUENCE[:, :t], mask=mask, query_positions=rows[:, :t])[:, -1] for t in range(2, 7)]
        alone = module(SEQUENCE[1, 2:], mask=mask)[-1]
        return jnp.stack(steps), jnp.stack(full), alone, jnp.stack(weights)

    steps, full, alone, weights = both(module)
    steps, full = steps.at[0, 1].set(0), full.at[0, 1].set(0)  # the second sequence has only padding there
    np.testing.assert_allclose(steps, full, **CLOSE)
    np.testing.assert_allclose(steps[-1, 1], alone, **CLOSE)
    np.testing.assert_allclose(weights[1:], 8.0, **CLOSE)


def test_dynamic_rope_has_one_length_for_each_row():
    """A row of a batch equals the row alone; `length` is one number or one per row."""
    rope = positions.rotary(scaling=positions.dynamic_scaling(4.0, 2))
    x, rows = normal(2, 2, 4, 3, 8), jnp.array([[0, 1, 2, 3], [4, 5, 6, 7]])

    @jax.jit
    def rotated(x):
        alone = jnp.stack([rope.heads(x[i], rows[i]) for i in range(2)])
        return alone, rope.heads(x, rows), rope.heads(x, rows, length=jnp.array([[4], [8]]))

    alone, batch, given = rotated(x)
    np.testing.assert_allclose(batch, alone, **CLOSE)
    np.testing.assert_allclose(given, alone, **CLOSE)
    other = jax.jit(lambda x: (rope.heads(x, rows, length=8), rope.heads(x, rows, length=4)))(x)
    np.testing.assert_allclose(other[0][1], alone[1], **CLOSE)
    np.testing.assert_allclose(other[1][0], alone[0], **CLOSE)


def test_dynamic_rope_does_not_count_padding():
    rope = positions.rotary(scaling=positions.dynamic_scaling(4.0, 2))
    where = jnp.array([0, 1, 2, cache.EMPTY])
    x = jnp.ones((4, 8))
    rotate = jax.jit(rope)
    np.testing.assert_allclose(rotate(x, where)[:3], rotate(x[:3], where[:3]), **CLOSE)


def test_precision_reaches_the_weights():
    text = str(jax.make_jaxpr(lambda x: attention_weights(x, x, x, precision="highest"))(X))
    assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == text.count("dot_general") > 0


@pytest.mark.parametrize("precision", [("high", "high"), jax.lax.DotAlgorithmPreset.DEFAULT])
def test_precision_forms_that_are_accepted(precision):
    np.testing.assert_allclose(attend(X, X, X, precision=precision), attend(X, X, X), **CLOSE)


@pytest.mark.parametrize("precision", [("high", "highest"), "sharp", 3])
def test_precision_forms_that_are_refused(precision):
    with pytest.raises(ValueError, match="precision: expected None, a name"):
        attend(X, X, X, precision=precision)


def test_flax_bias_comes_after_the_mods_of_the_rule():
    x, bias = X[None, :, None], jnp.array([[3.0, -2.0, 5.0]])[None]
    capped = mods.soft_cap(0.1)
    orders = (capped, mods.bias(bias)), (mods.bias(bias), capped)
    adapter_output = jax.jit(lambda x: flax_attention_fn(mods=(capped,))(x, x, x, bias=bias))(x)
    after, before = jax.jit(lambda x: [attend_heads(x, x, x, mods=order) for order in orders])(x)
    np.testing.assert_allclose(adapter_output, after, **CLOSE)
    assert np.max(np.abs(adapter_output - before)) > 1e-2


def test_values_at_forbidden_keys_may_be_nan():
    v = np.where(np.arange(3)[:, None] == 2, np.nan, X)
    expected = attend(X, X[:2], X[:2], score=scores.dot())
    for rule in (
        {"score": scores.dot(), "mods": (mods.bias(jnp.array([[0.0, 0.0, -jnp.inf]])),)},
        {"score": lambda q, k: jnp.where(jnp.arange(3) > 1, -jnp.inf, q @ k.T)},
    ):
        np.testing.assert_allclose(attend(X, X, v, **rule), expected, **CLOSE)


def test_constants_can_be_built_while_tracing():
    build = lambda: layer(mods=(mods.alibi(positions.alibi_slopes(4)),))  # noqa: E731
    shapes = jax.eval_shape(build)
    assert jax.tree.structure(shapes) == jax.tree.structure(build())


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_cosine_of_very_short_and_very_long_vectors(size):
    x = np.full((1, 4), size, np.float32)
    np.testing.assert_allclose(jax.jit(scores.cosine())(x, np.ones((1, 4), np.float32)), [[1.0]], **CLOSE)
    gradient = jax.jit(jax.grad(lambda x: scores.cosine()(x, X)[0, 0]))(x / size)
    np.testing.assert_allclose(np.asarray(gradient) @ np.ones(4), [0.0], atol=FORWARD["float32"])


def test_attn_refuses_sizes_that_would_be_ignored():
    module = nn.Attn(4, 999, 777, 4, 8, score=scores.scaled_dot(), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"expected sizes .* = \(4, 999, 777, 4\), got \(4, 4, 3, 4\)"):
        module(X, X, X)


def test_inputs_of_other_sizes_than_the_layer_are_named():
    module = layer(key_size=6, value_size=7)
    with pytest.raises(ValueError, match=r"value: expected 7 features in the last axis, got shape \(2, 6, 6\)"):
        module(SEQUENCE, jnp.ones((2, 6, 6)))


def test_explain_shows_the_operands_of_the_caller():
    q, kv = jnp.ones((2, 6, 4, 8)), jnp.ones((2, 5, 2, 8))
    report = explain(q, kv, kv, heads=True)
    assert report.shapes["query"] == "float32[2,6,4,8]"
    assert report.shapes["scores"] == "float32[2,2,2,6,5], 960 bytes"


def test_cache_batch_is_a_tuple():
    with pytest.raises(TypeError, match="batch: expected a tuple of sizes, got 3"):
        cache.create(4, 1, 2, batch=3)
