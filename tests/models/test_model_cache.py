"""The cache: any chunking of a prompt, rows of any length padded on either side, rings, and overflow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_attention import models
from jax_attention.cache import EMPTY
from tests.models import small
from tests.support.tiers import slow, slow_except

T = 9
ONE_LAYOUT = [pytest.param(False, id="unrolled", marks=pytest.mark.slow), pytest.param(True, id="scanned")]


@small.jit
def full(model, tokens):
    return model(tokens).logits


@small.jit
def step(model, tokens, cache, positions=None):
    out = model(tokens, positions=positions, cache=cache)
    return out.logits, out.cache


def in_chunks(model, tokens, sizes, cache):
    """The logits of all tokens, appended in chunks of these sizes."""
    found, start = [], 0
    for size in sizes:
        logits, cache = step(model, tokens[..., start : start + size], cache)
        found.append(logits)
        start += size
    return np.concatenate(found, axis=-2), cache


LAYOUTS = [("rotary", True)]
SLOW_LAYOUTS = [(scheme, False) for scheme in small.SCHEMES] + [("t5", True)]


@pytest.mark.parametrize(
    ("scheme", "scan"), LAYOUTS + [pytest.param(*layout, marks=pytest.mark.slow) for layout in SLOW_LAYOUTS]
)
def test_prompt_in_chunks_equals_the_full_call(scheme, scan):
    """Any chunking is right: flax#1317 allows one token at a time only, flash-attention#1414 asks for such a test."""
    model, tokens = small.model(scheme), small.tokens(2, small.CONTEXT)
    model = models.scan_layers(model) if scan else model
    found, cache = in_chunks(model, tokens, (4, 1, 4, 1, 1, 1), model.init_cache((2,)))
    np.testing.assert_allclose(found, full(model, tokens), **small.CLOSE)
    assert (int(cache.length), cache.capacity) == (small.CONTEXT, small.CONTEXT)


SIZES = st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=T)


@pytest.mark.slow
@given(sizes=SIZES)
@settings(max_examples=15)
def test_any_chunking(sizes):
    """One sequence without a batch dimension; three chunk sizes, so three programs."""
    model, tokens = small.model("rotary"), small.tokens(small.CONTEXT)
    sizes = [size for i, size in enumerate(sizes) if sum(sizes[: i + 1]) <= small.CONTEXT]
    found, _ = in_chunks(model, tokens, sizes, model.init_cache())
    np.testing.assert_allclose(found, full(model, tokens)[: sum(sizes)], **small.CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True], ids=["unrolled", "scanned"])
def test_layers_with_a_window_may_keep_a_ring(scan):
    model, tokens = small.model("rotary", windows=(3, None)), small.tokens(2, small.CONTEXT)
    model = models.scan_layers(model) if scan else model
    cache = model.init_cache((2,), ring_chunk=2)
    stores = (*cache.scanned, *cache.rest)
    assert [(store.capacity, store.ring) for store in stores] == [(4, True), (small.CONTEXT, False)]
    found, _ = in_chunks(model, tokens, (2, 1, 2, 1, 2, 2, 2), cache)
    np.testing.assert_allclose(found, full(model, tokens), **small.CLOSE)


def test_a_ring_goes_on_beyond_its_capacity_in_chunks_of_at_most_ring_chunk():
    model, tokens = small.model("rotary", windows=(3,), depth=1), small.tokens(30)
    cache = model.init_cache(ring_chunk=2)
    assert cache.capacity is None
    found, _ = in_chunks(model, tokens, [2] * 15, cache)
    np.testing.assert_allclose(found, full(model, tokens), **small.CLOSE)
    with pytest.raises(ValueError, match=r"cache: expected a ring with at least window \+ 3 - 1 slots"):
        jax.eval_shape(lambda: model(tokens[:3], cache=cache))
    assert not model.init_cache(capacity=4, ring_chunk=2).rest[0].ring, "a ring would save nothing"


# --- Rows of different lengths ---------------------------------------------------------------------------------------

LENGTHS = (5, 3, 1)
DECODED = 2
ROWS = small.tokens(len(LENGTHS), T)


def padded(side):
    """Prompts of LENGTHS tokens with junk in the padding, and positions that are EMPTY there."""
    tokens = np.full((len(LENGTHS), max(LENGTHS)), 11, np.int32)
    positions = np.full(tokens.shape, EMPTY, np.int32)
    for row, length in enumerate(LENGTHS):
        tokens_of_row = slice(0, length) if side == "right" else slice(max(LENGTHS) - length, None)
        tokens[row, tokens_of_row], positions[row, tokens_of_row] = ROWS[row, :length], np.arange(length)
    return jnp.asarray(tokens), jnp.asarray(positions)


@pytest.mark.parametrize("side", ["left", *slow("right")])
@pytest.mark.parametrize("scheme", slow_except(("learned",), small.SCHEMES))
def test_ragged_rows_equal_rows_alone(scheme, side):
    """Padding must not get lost in decoding (mlx-lm#1906): positions go on after the last token of each row."""
    model = small.model(scheme)
    expected, rows = np.asarray(full(model, ROWS)), np.asarray(ROWS)
    tokens, positions = padded(side)
    cache = model.init_cache((len(LENGTHS),))
    logits, cache = step(model, tokens, cache, positions)
    real = np.asarray(positions) != EMPTY
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(np.asarray(logits)[row][real[row]], expected[row, :length], **small.CLOSE)
    for i in range(DECODED):
        indices = [length + i for length in LENGTHS]
        logits, cache = step(model, rows[np.arange(len(LENGTHS)), indices][:, None], cache)
        np.testing.assert_allclose(np.asarray(logits)[:, 0], expected[np.arange(len(LENGTHS)), indices], **small.CLOSE)
    np.testing.assert_array_equal(cache.next_positions(2), np.asarray(LENGTHS)[:, None] + DECODED + np.arange(2))


@pytest.mark.parametrize("scheme", ["learned", *slow("rotary")])
def test_padding_makes_no_nan_anywhere(scheme):
    """No NaN (transformers#38690) also in a row of padding alone: forward, with a cache, and in every gradient."""
    depth = 2 if scheme == "rotary" else 1  # with two, padded rows feed a layer
    model, (tokens, positions) = small.model(scheme, depth=depth), map(np.array, padded("left"))
    positions[2] = EMPTY

    def loss(model):
        return (np.where(positions == EMPTY, 0, 1)[..., None] * model(tokens, positions=positions).logits).sum()

    with jax.debug_nans(True):
        gradient = small.jit(jax.grad(loss))(model)
        logits, cache = step(model, tokens, model.init_cache((3,)), positions)
        logits, _ = step(model, tokens[:, :1], cache)
    assert all(np.all(np.isfinite(x)) for x in (*jax.tree.leaves(gradient), *jax.tree.leaves((logits, cache))))


# --- Overflow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", ONE_LAYOUT)
def test_overflow_is_an_error_and_under_jit_nan(scan):
    """Overflowing rows are never clamped. A scanned model cannot raise in its layers, so the model itself checks."""
    model = small.model("none", depth=2)
    model = models.scan_layers(model) if scan else model
    _, cache = step(model, small.tokens(2), model.init_cache(capacity=3))
    with pytest.raises(ValueError, match="tokens: expected at most 3 rows in the cache, which holds 2, got 2 more"):
        model(small.tokens(2), cache=cache)
    with pytest.raises(ValueError, match="tokens: expected at most 3 rows"):
        jax.eval_shape(lambda: step(model, small.tokens(5), model.init_cache(capacity=3)))
    assert np.all(np.isnan(step(model, small.tokens(2), cache)[0]))
    assert np.all(np.isfinite(step(model, small.tokens(1), cache)[0]))


@pytest.mark.slow
def test_a_cache_may_be_kept_in_another_dtype():
    model, tokens = small.model("rotary", depth=1), small.tokens(2, 4)
    cache = model.init_cache((2,), dtype=jnp.bfloat16)
    assert cache.rest[0].key.dtype == jnp.bfloat16
    logits, cache = step(model, tokens, cache)
    assert (logits.dtype, cache.rest[0].key.dtype) == (jnp.float32, jnp.bfloat16)
    error = np.abs(np.asarray(logits - full(model, tokens))).max()
    assert 0 < error < 0.1
