"""Modules of nn under JAX's strict modes, forward and backward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jax_attention import cache, masks, mods, nn, positions
from tests.support.arrays import normal
from tests.support.tiers import slow_except

B, T, S, D = 2, 4, 5, 8
X, Y = normal(0, B, T, D), normal(1, B, S, 6)


def rngs():
    return nnx.Rngs(0)


MODULES = {
    "Attn": (lambda: nn.Attn(D, 6, S, 6, 7, rngs=rngs()), lambda m: m(X[0], Y[0, :T], Y[0])),
    "SelfAttention": (lambda: nn.SelfAttention(D, mask=masks.causal(), rngs=rngs()), lambda m: m(X)),
    "MultiHeadAttention": (
        lambda: nn.MultiHeadAttention(
            4,
            D,
            kv_heads=2,
            packed=True,
            rope=positions.rotary(scaling=positions.dynamic_scaling(2.0, 3)),
            mods=(nn.LearnedPart(mods.alibi(positions.alibi_slopes(4))),),
            mask=masks.causal(),
            rngs=rngs(),
        ),
        lambda m: m(X),
    ),
    "MultiHeadAttention, cross": (
        lambda: nn.MultiHeadAttention(2, D, key_size=6, bias_kv=True, rngs=rngs()),
        lambda m: (m(X, Y), m.weights(X, Y)),
    ),
    "MultiHeadAttention, step": (
        lambda: nn.MultiHeadAttention(2, D, mask=masks.sliding_window(3), rngs=rngs()),
        lambda m: m.step(X, cache.create(8, 2, 4, batch=(B,)))[0],
    ),
    "MultiHeadAttention, memory": (
        lambda: nn.MultiHeadAttention(2, D, key_size=6, rngs=rngs()),
        lambda m: m.cross_attend(X, m.project_memory(Y)),
    ),
    "FeedForward": (lambda: nn.FeedForward(D, 12, activation="swiglu", rngs=rngs()), lambda m: m(X)),
    "Linear": (lambda: nn.Linear(D, 3, rngs=rngs()), lambda m: m(X)),
    "GRU": (lambda: nn.GRU(D, 4, bidirectional=True, rngs=rngs()), lambda m: m(X, lengths=jnp.array([2, 4]))[0]),
    "LSTM": (lambda: nn.LSTM(D, 4, rngs=rngs()), lambda m: m(X)[0]),
}


def loss_and_gradient(name):
    make, call = MODULES[name]

    def loss(module):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(call(module)))

    return make, jax.value_and_grad(loss)


@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("name", MODULES)
def test_traced_under_strict_promotion_and_rank(name, x64):
    """Dtypes and ranks are checked while tracing; float32 stays float32."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.enable_x64(x64):
        make, run = loss_and_gradient(name)
        value, gradient = jax.eval_shape(lambda: run(make()))
        assert value.dtype == jnp.float32
        assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", slow_except(("MultiHeadAttention", "LSTM"), MODULES))
def test_run_under_debug_modes(name):
    """Finite numbers are computed from finite numbers, inside too."""
    make, run = loss_and_gradient(name)
    with jax.debug_nans(True), jax.debug_infs(True):
        jax.jit(run)(make())
