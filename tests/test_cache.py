"""`jax_attention.cache`: whatever was appended in whatever pieces, attention over the cache equals the full forward.

Closes flax#1317 (a cache that took one token at a time), flax#5591 (decode attended to key 0 only), mlx-lm#1906 (left
padding lost in decode), flash-attention#1414 (no test of cache against no cache), flax#4505 (the cache made it slower:
here one compilation serves prefill and one serves all steps).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import attend_heads, cache, masks
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD, GRADIENT

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
T, N, K, H, E = 8, 4, 2, 4, 3


def operands(length: int = T, batch: tuple[int, ...] = (), seed: int = 0):
    rng = np.random.default_rng(seed)
    shapes = [(*batch, length, N, H), (*batch, length, K, H), (*batch, length, K, E)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@functools.partial(jax.jit, static_argnames="mask")
def step(held, q, k, v, positions=None, mask=None):
    """One call for prefill and decode: append, then attend from the positions of the new rows."""
    rows = cache.next_positions(held, q.shape[-3]) if positions is None else positions
    held = cache.append(held, k, v, positions)
    mask = masks.causal() if mask is None else mask
    return held, attend_heads(q, held.key, held.value, mask=mask, query_positions=rows, key_positions=held.positions)


def in_chunks(held, q, k, v, sizes, **options):
    outputs, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        held, output = step(held, q[..., rows, :, :], k[..., rows, :, :], v[..., rows, :, :], **options)
        outputs.append(output)
        start += size
    return held, jnp.concatenate(outputs, axis=-3)


@functools.partial(jax.jit, static_argnames="mask")
def full(q, k, v, mask=None):
    mask = masks.causal() if mask is None else mask
    return attend_heads(q, k, v, mask=mask)


@functools.cache
def expected():
    return full(*operands())


@st.composite
def chunkings(draw, total: int = T):
    cuts = sorted(draw(st.sets(st.integers(1, total - 1))))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


@given(chunkings())
def test_any_chunking_of_the_prompt_equals_the_full_forward(sizes):
    """flax#1317, flash-attention#1414."""
    held, output = in_chunks(cache.create(T + 3, K, H, E), *operands(), sizes)
    np.testing.assert_allclose(output, expected(), **CLOSE)
    assert int(held.length) == T
    assert held.positions.tolist() == [*range(T), *[cache.EMPTY] * 3]


def test_step_by_step_equals_the_full_forward():
    """flax#5591: cached decode attended to key 0 only."""
    _, output = in_chunks(cache.create(T, K, H, E), *operands(), [1] * T)
    np.testing.assert_allclose(output, expected(), **CLOSE)


def test_prefill_of_nothing_changes_nothing():
    empty = cache.create(T, K, H, E)
    _, k, v = operands(0)
    held = cache.append(empty, k, v)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(held), jax.tree.leaves(empty), strict=True))


@pytest.mark.parametrize("append", [1, 3], ids=["one", "several"])
def test_ring_with_a_window_equals_the_full_windowed_forward(append):
    """Memory stays at window + append - 1 slots; the sequence is five times as long (mlx#2835, transformers#39408)."""
    length, window = 24, 4
    capacity = window + append - 1
    q, k, v = operands(length)
    held, output = in_chunks(
        cache.create(capacity, K, H, E, ring=True),
        q,
        k,
        v,
        [append] * (length // append),
        mask=masks.sliding_window(window),
    )
    np.testing.assert_allclose(output, full(q, k, v, masks.sliding_window(window)), **CLOSE)
    assert held.capacity == capacity
    assert sorted(held.positions.tolist()) == list(range(length - capacity, length))


@pytest.mark.parametrize("side", ["left", *slow("right")])
@pytest.mark.parametrize("garbage", [1e4, np.nan], ids=["finite", "nan"])
def test_ragged_batch_equals_its_rows_alone(side, garbage):
    """mlx-lm#1906: left padding lost in decode; here padding rows stand at EMPTY, and what is in them is not seen."""
    mask = masks.causal() & cache.filled() if np.isnan(garbage) else masks.causal()
    real, width = (2, 4), 4
    rows = [operands(T, seed=i) for i in range(2)]
    alone = [full(*row) for row in rows]
    pads = [(width - n, 0) if side == "left" else (0, width - n) for n in real]

    def padded(part: int) -> np.ndarray:
        cut = [(row[part][:n], (pad, (0, 0), (0, 0))) for row, n, pad in zip(rows, real, pads, strict=True)]
        return np.stack([np.pad(x, spaces, constant_values=garbage) for x, spaces in cut])

    cut = [(np.arange(n), pad) for n, pad in zip(real, pads, strict=True)]
    places = np.stack([np.pad(x, pad, constant_values=cache.EMPTY) for x, pad in cut])
    held, output = step(cache.create(T, K, H, E, batch=(2,)), *map(padded, range(3)), places, mask)
    for i, n in enumerate(real):
        np.testing.assert_allclose(output[i, pads[i][0] :][:n], alone[i][:n], **CLOSE)
    for extra in range(2):
        new = [np.stack([row[part][n + extra] for row, n in zip(rows, real, strict=True)]) for part in range(3)]
        held, output = step(held, *(x[:, None] for x in new), np.array(real)[:, None] + extra, mask)
        for i, n in enumerate(real):
            np.testing.assert_allclose(output[i, 0], alone[i][n + extra], **CLOSE)


def test_overflow_is_an_error_outside_of_jit_and_nan_inside():
    """flax#4505 and others clamp: the last slot is overwritten and nothing is said."""
    q, k, v = operands(3)
    held = cache.append(cache.create(4, K, H, E), k, v)
    with pytest.raises(ValueError, match="at most 1 more rows"):
        cache.append(held, k, v)
    _, output = step(held, q, k, v)
    assert np.isnan(output).all()
    _, output = step(held, q[:1], k[:1], v[:1])
    assert np.isfinite(output).all()


def test_one_compilation_for_prefill_and_one_for_fifty_steps():
    traces = []

    @jax.jit
    def counted(held, q, k, v):
        traces.append(q.shape)
        rows = cache.next_positions(held, q.shape[-3])
        held = cache.append(held, k, v)
        return held, attend_heads(
            q, held.key, held.value, mask=masks.causal(), query_positions=rows, key_positions=held.positions
        )

    held, _ = counted(cache.create(64, K, H, E), *operands(7))
    one = operands(1)
    for _ in range(50):
        held, output = counted(held, *one)
    assert traces == [(7, N, H), (1, N, H)]
    assert int(held.length) == 57
    assert np.isfinite(output).all()


def test_works_as_the_carry_of_a_scan():
    q, k, v = (x[:, None] for x in operands())
    _, output = jax.lax.scan(lambda held, x: step(held, *x), cache.create(T, K, H, E), (q, k, v))
    np.testing.assert_allclose(output[:, 0], expected(), **CLOSE)


def test_vmap_over_a_batch_of_caches():
    q, k, v = operands(batch=(3,))
    held = jax.vmap(lambda _: cache.create(T, K, H, E))(jnp.arange(3))
    run = jax.vmap(lambda held, q, k, v: in_chunks(held, q, k, v, [5, 3]))
    held, output = run(held, q, k, v)
    np.testing.assert_allclose(output, full(q, k, v), **CLOSE)
    assert held.length.tolist() == [T] * 3


def test_batch_axes_inside_one_cache():
    q, k, v = operands(batch=(2, 3))
    _, output = in_chunks(cache.create(T, K, H, E, batch=(2, 3)), q, k, v, [6, 1, 1])
    np.testing.assert_allclose(output, full(q, k, v), **CLOSE)


def test_gradients_flow_through_append():
    close = {"rtol": GRADIENT["float32"], "atol": GRADIENT["float32"]}

    def cached(ring, q, k, v):
        return jnp.sum(jnp.sin(in_chunks(cache.create(T, K, H, E, ring=ring), q, k, v, [5, 3])[1]))

    @jax.jit
    def gradients(q, k, v):
        whole = jax.grad(lambda q, k, v: jnp.sum(jnp.sin(full(q, k, v))), (0, 1, 2))(q, k, v)
        return whole, *(jax.grad(functools.partial(cached, ring), (0, 1, 2))(q, k, v) for ring in (False, True))

    whole, plain, ring = gradients(*operands())
    for part in range(3):
        np.testing.assert_allclose(plain[part], whole[part], **close)
        np.testing.assert_allclose(ring[part], whole[part], **close)


@pytest.mark.parametrize("kv_heads", [*slow(1, 4), 2])
def test_grouped_queries(kv_heads):
    q = operands()[0]
    k = v = operands(seed=1)[0][:, :kv_heads]
    held, output = in_chunks(cache.create(T, kv_heads, H), q, k, v, [5, 3])
    np.testing.assert_allclose(output, full(q, k, v), **CLOSE)
    assert held.key.shape == (T, kv_heads, H)


def test_rows_are_cast_to_the_dtype_of_the_cache():
    _, k, v = operands(3)
    held = cache.append(cache.create(4, K, H, E, dtype=jnp.bfloat16), k, v)
    assert held.key.dtype == held.value.dtype == jnp.bfloat16
    assert np.array_equal(held.key[:3], k.astype(jnp.bfloat16))


def test_filled_hides_empty_slots_from_masks_that_see_the_future():
    q, k, v = operands(5)
    held = cache.append(cache.create(T, K, H, E), k, v)
    options = {"query_positions": jnp.arange(5), "key_positions": held.positions}

    @jax.jit
    def outputs(q, k, v, held):
        hidden = attend_heads(q, held.key, held.value, mask=cache.filled(), **options)
        return hidden, attend_heads(q, k, v), attend_heads(q, held.key, held.value, **options)

    hidden, expected, seen = outputs(q, k, v, held)
    np.testing.assert_allclose(hidden, expected, **CLOSE)
    assert np.max(np.abs(seen - hidden)) > 1e-2, "without filled() the zeros of empty slots take part"


def test_the_cache_given_is_not_changed():
    _, k, v = operands(3)
    held = cache.create(4, K, H, E)
    cache.append(held, k, v)
    assert int(held.length) == 0
    assert not np.any(held.key)
