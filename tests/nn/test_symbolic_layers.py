"""Layers with symbolic batch sizes and lengths: one exported program for all sizes, with its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax import export

from jax_attention import cache, masks, mods, nn, normalizers, positions, scores
from tests.support.arrays import normal
from tests.support.exporting import SIZES, SYMBOLIC, check_exported, like, spec, symbolic_sizes
from tests.support.tiers import slow_except

D = 8


def layers() -> dict[str, tuple[Any, Callable]]:
    """Layers by name, each with a call of it for `x[B, T, D]`."""
    rngs, causal = nnx.Rngs(0), masks.causal()
    heads = nn.MultiHeadAttention(4, D, kv_heads=2, rope=positions.rotary(), mask=causal, rngs=rngs)
    dynamic = positions.rotary(scaling=positions.dynamic_scaling(2.0, original_length=8))
    learned = nn.LearnedPart(mods.alibi(positions.alibi_slopes(2)))
    linear_rule = {"score": scores.features("relu"), "normalize": normalizers.proportional()}
    window = nn.MultiHeadAttention(2, D, mask=masks.sliding_window(3), rngs=rngs)
    return {
        "SelfAttention": (nn.SelfAttention(D, mask=causal, rngs=rngs), lambda m, x: (m(x), m.weights(x))),
        "MultiHeadAttention": (heads, lambda m, x: m(x)),
        "MultiHeadAttention.weights": (heads, lambda m, x: m.weights(x)),
        "MultiHeadAttention.step": (heads, lambda m, x: m.step(x, cache.create(16, 2, 2, batch=x.shape[:-2]))),
        "MultiHeadAttention.cross_attend": (
            nn.MultiHeadAttention(2, D, packed=True, rngs=rngs),
            lambda m, x: m.cross_attend(x, m.project_memory(x)),
        ),
        "MultiHeadAttention(bias_kv)": (
            nn.MultiHeadAttention(4, D, bias_kv=True, rngs=rngs),
            lambda m, x: (m(x), m.weights(x)),
        ),
        "MultiHeadAttention(dynamic rope, learned slopes)": (
            nn.MultiHeadAttention(2, D, rope=dynamic, mods=(learned,), rngs=rngs),
            lambda m, x: m(x),
        ),
        "MultiHeadAttention(linear)": (
            nn.MultiHeadAttention(2, D, **linear_rule, mask=causal, rngs=rngs),
            lambda m, x: m(x),
        ),
        "MultiHeadAttention(lengths)": (
            window,
            lambda m, x: m(x, mask=masks.lengths(jnp.full((*x.shape[:-2], 1), 3))),
        ),
        "Attn(Additive)": (nn.Attn(D, D, None, D, D, score=nn.Additive(D, D, 5, rngs=rngs), rngs=rngs), _attn),
        "Attn(General)": (nn.Attn(D, D, None, D, D, score=nn.General(D, D, rngs=rngs), rngs=rngs), _attn),
        "Attn(Concat)": (nn.Attn(D, D, None, D, D, score=nn.Concat(D, D, rngs=rngs), rngs=rngs), _attn),
        "FeedForward": (nn.FeedForward(D, 16, activation="swiglu", rngs=rngs), lambda m, x: m(x)),
        "Linear": (nn.Linear(D, 3, rngs=rngs), lambda m, x: m(x)),
        "GRU": (nn.GRU(D, 5, num_layers=2, bidirectional=True, rngs=rngs), lambda m, x: m(x)),
        "LSTM": (nn.LSTM(D, 5, rngs=rngs), lambda m, x: m(x, lengths=jnp.full(x.shape[:-2], 3))),
    }


def _attn(layer: Any, x: jax.Array) -> Any:
    return layer(x, x, x), layer.weights(x, x, x)


NAMES = list(layers())
QUICK = ["MultiHeadAttention.step-both", "LSTM-both"]
TABLE = [pytest.param(name, kind, id=f"{name}-{kind}") for name in NAMES for kind in SYMBOLIC]


@pytest.mark.parametrize(("name", "kind"), slow_except(QUICK, TABLE))
def test_one_exported_layer_is_right_at_every_size(name, kind):
    layer, call = layers()[name]
    arguments = [(layer, normal(length, batch, length, D, dtype="float32")) for batch, length in SIZES[kind]]
    check_exported(call, (like(layer), spec(*symbolic_sizes(kind), D)), arguments, (0, 1))


@pytest.mark.parametrize("count", slow_except((5,), (5, 11)))
def test_rows_appended_to_a_cache_are_counted_at_run_time(count):
    """Three rows are in the cache of 16 slots: 5 more fit in a program for any number, and so does every next row."""
    layer, _ = layers()["MultiHeadAttention"]
    x = normal(0, 3 + count + 1, D, dtype="float32")

    def run(x: jax.Array, more: jax.Array) -> Any:
        first, kept = layer.step(x[:3], cache.create(16, 2, 2))
        second, kept = layer.step(more, kept)
        last, kept = layer.step(x[3:], kept)
        return first, second, last, kept

    (t,) = export.symbolic_shape("t")
    specs = (spec(4, D), spec(t, D))
    check_exported(run, specs, [(x[jnp.array([0, 1, 2, -1])], x[3:-1])], (0, 1))


@pytest.mark.parametrize(("before", "count"), [(3, 14), (0, 17), (0, 40)])
def test_rows_that_do_not_fit_into_a_cache_give_nan(before, count):
    """As in a program of known sizes, where Python cannot raise either; the last row is the one to decode from."""
    layer, _ = layers()["MultiHeadAttention(lengths)"]

    def run(x: jax.Array, first: jax.Array) -> jax.Array:
        _, kept = layer.step(first, cache.create(16, 2, 4)) if before else (None, cache.create(16, 2, 4))
        return layer.step(x, kept)[0]

    (t,) = export.symbolic_shape("t")
    program = export.export(jax.jit(run))(spec(t, D), spec(before, D))
    assert bool(jnp.isnan(program.call(normal(0, count, D, dtype="float32"), jnp.zeros((before, D)))[-1]).all())


def test_a_ring_needs_a_bound_of_the_rows_that_are_appended():
    """More rows than `capacity - window + 1` would overwrite keys that they need, and nothing could tell."""
    layer, _ = layers()["MultiHeadAttention(lengths)"]

    def run(x: jax.Array) -> jax.Array:
        return layer.step(x, cache.create(6, 2, 4, ring=True))[0]

    (t,) = export.symbolic_shape("t")
    with pytest.raises(ValueError, match=r"cache: expected a ring with at least window \+ t - 1 slots"):
        jax.eval_shape(run, spec(t, D))
    (bounded,) = export.symbolic_shape("t", constraints=["t <= 4"])
    check_exported(run, (spec(bounded, D),), [(normal(0, 3, D, dtype="float32"),)], (0,))
