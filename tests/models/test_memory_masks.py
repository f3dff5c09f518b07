"""A mask of queries and keys on cross-attention: both layouts, step by step, padding of the source, positions."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import masks, models, mods
from jax_attention.cache import EMPTY
from tests.models import small

T, S, D = 6, 5, 16
CONFIG = small.config("rotary", memory_size=D, windows=(None,), local_rope=None)
rng = np.random.default_rng(0)
X, STATES = (jnp.asarray(rng.normal(size=(2, rows, D)), jnp.float32) for rows in (T, S))
BAND = masks.sliding_window(2, 1)
"""Each token attends to the source at its position, one before and one after; the last ones to nothing there."""
SLOPE = mods.alibi(jnp.array([0.5, 1.0, 0.0, 2.0]))


def make(**changes):
    return small.filled(lambda: models.TransformerStack(dataclasses.replace(CONFIG, **changes), rngs=nnx.Rngs(0)))


def by_hand(stack, x, **options):
    """The same stack, block by block; the mask and the mods of the memory go to the cross-attention alone."""
    for block in stack.blocks.rest:
        x = x + block.attention_after(block.attention(block.attention_norm(x), mods=tuple(m.value for m in block.mods)))
        x = x + block.cross_after(block.cross(block.cross_norm(x), STATES, **options))
        x = x + block.feed_forward_after(block.feed_forward(block.feed_forward_norm(x)))
    return stack.final_norm(x)


def test_the_mask_goes_to_cross_attention_in_every_layer_and_layout():
    stack = make()
    options = {"memory_mask": BAND, "memory_mods": (SLOPE,)}

    @small.jit
    def run(stack, scanned):
        return (
            stack(X, STATES, **options),
            stack(X, stack.project_memory(STATES), memory_mask=BAND, memory_mods=SLOPE),
            scanned(X, STATES, **options),
            by_hand(stack, X, mask=BAND, mods=(SLOPE,)),
            by_hand(stack, X),
        )

    *found, expected, plain = run(stack, models.scan_layers(stack))
    for one in found:
        np.testing.assert_allclose(one, expected, **small.CLOSE)
    assert np.abs(expected - plain).max() > 1e-2


def test_positions_of_queries_and_keys_are_seen_step_by_step_and_through_padding():
    stack, count = make(depth=1), 4
    padded = jnp.concatenate([STATES[:, :1], jnp.full((2, 1, D), 3.0), STATES[:, 1:]], axis=1)
    source_positions = jnp.array([0, EMPTY, 1, 2, 3, 4])

    @small.jit
    def run(stack):
        whole = stack(X, STATES, memory_mask=BAND)
        padding = stack.project_memory(padded, source_positions)
        hidden = stack(X, padding, memory_mask=BAND)
        memory = stack.project_memory(STATES)
        first = stack.read(X[:, :count], cache=stack.init_cache((2,)), memory=memory, memory_mask=BAND)
        second = stack.read(X[:, count:], cache=first.cache, memory=memory, memory_mask=BAND)
        return whole, hidden, jnp.concatenate([first.hidden, second.hidden], axis=1)

    whole, hidden, stepped = run(stack)
    np.testing.assert_allclose(hidden, whole, **small.CLOSE)
    np.testing.assert_allclose(stepped, whole, **small.CLOSE)


def test_a_query_that_may_attend_to_nothing_gets_nothing_from_the_memory():
    stack = make(depth=1)
    nowhere = masks.dense(jnp.arange(T)[:, None] != 2) & masks.dense(jnp.ones((1, S), bool))

    def through(states):
        return jnp.sum(jnp.sin(stack(X, states, memory_mask=nowhere)[:, 2]))

    gradient = small.jit(jax.grad(through))(STATES)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("scan", [False, True])
def test_captured_weights_over_the_memory_are_those_after_the_mask(scan):
    stack = make(scan=scan)

    @small.jit
    def run(stack):
        memory, capture = stack.project_memory(STATES), models.Capture(cross="all")
        return stack.read(X, memory=memory, memory_mask=BAND, capture=capture).captured.cross

    allowed = np.abs(np.arange(T)[:, None] - np.arange(S)) < 2
    for weights in run(stack).values():
        np.testing.assert_array_equal(np.asarray(weights) > 0, np.broadcast_to(allowed, weights.shape))
