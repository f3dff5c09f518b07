"""The rows of Flax: the modules of Linen and NNX, their functions and their masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from jax_attention import Dropout, attend_heads, attention_weights_heads, flax_attention_fn, masks, mods
from tests.coming_from.operands import BIAS, KK, SELF, B, H, N, Q, S, T, V, check_close

flax_attention = jax.jit(linen.dot_product_attention, static_argnames=("dropout_rate", "broadcast_dropout"))
"""Flax's function in one program; without `jit` JAX compiles each of its operations."""


def flax_1():
    x = Q.reshape(B, T, N * H)
    flax_layer = linen.MultiHeadDotProductAttention(N)
    variables = jax.jit(flax_layer.init)(jax.random.key(0), x)
    jax_layer = linen.MultiHeadDotProductAttention(N, attention_fn=flax_attention_fn())
    check_close(*jax.jit(lambda *inputs: (jax_layer.apply(*inputs), flax_layer.apply(*inputs)))(variables, x))


def flax_2():
    x = Q.reshape(B, T, N * H)
    flax_layer = nnx.MultiHeadAttention(N, N * H, decode=False, rngs=nnx.Rngs(0))
    jax_layer = nnx.MultiHeadAttention(N, N * H, decode=False, rngs=nnx.Rngs(0), attention_fn=flax_attention_fn())
    check_close(jax_layer(x, is_causal=True), flax_layer(x, is_causal=True))


def flax_3():
    check_close(attend_heads(Q, KK, V), flax_attention(Q, KK, V))


def flax_4():
    mask = linen.make_causal_mask(np.ones((B, S)))
    check_close(attend_heads(SELF, KK, V, mask=masks.causal()), flax_attention(SELF, KK, V, mask=mask))


def flax_5():
    """Rows without a key are compared separately: they are 0 here and the mean of all values in Flax."""
    q_lengths, k_lengths = np.array([2, T]), np.array([S, 2])
    real = np.arange(T) < q_lengths[:, None]
    array = linen.make_attention_mask(real, np.arange(S) < k_lengths[:, None])
    flax_output = flax_attention(Q, KK, V, mask=array)
    for mask in (masks.dense(array > 0), masks.lengths(k_lengths[:, None], q_lengths[:, None])):
        jax_output = attend_heads(Q, KK, V, mask=mask)
        check_close(jax_output[real], flax_output[real])
        assert np.all(np.asarray(jax_output[~real]) == 0)


def flax_6():
    ids = np.array([[0, 0, 1, 1, 1], [3, 4, 4, 5, 5]])
    mask = linen.make_attention_mask(ids, ids, jnp.equal)
    check_close(
        attend_heads(SELF, KK, V, mask=masks.segments(ids[:, None])),
        flax_attention(SELF, KK, V, mask=mask),
    )


def flax_7():
    valid = np.arange(S)[None] < np.array([[S], [2]])
    mask = linen.combine_masks(linen.make_causal_mask(valid), linen.make_attention_mask(np.ones((B, S)), valid))
    jax_output = attend_heads(SELF, KK, V, mask=masks.causal() & masks.lengths(np.array([[S], [2]])))
    check_close(jax_output, flax_attention(SELF, KK, V, mask=mask))


def flax_8():
    check_close(attend_heads(Q, KK, V, mods=(mods.bias(BIAS),)), flax_attention(Q, KK, V, bias=BIAS))


def flax_9():
    """One dropout pattern for all batch elements and heads, as in Flax, but with different bits."""
    rng, one_hot = jax.random.key(0), np.broadcast_to(np.eye(S, dtype=np.float32)[:, None], (B, S, N, S))
    flax_output = flax_attention(Q, KK, one_hot, dropout_rng=rng, dropout_rate=0.5, broadcast_dropout=True)
    jax_output = attend_heads(Q, KK, one_hot, dropout=Dropout(rng, 0.5, shared=True))
    for out in (jax_output, flax_output):
        kept = np.swapaxes(np.asarray(out) > 0, 1, 2)
        assert np.all(kept == kept[:1, :1])
        assert 0 < kept.mean() < 1


def flax_10():
    x = Q.reshape(B, T, N * H)
    layer = nnx.MultiHeadAttention(N, N * H, decode=False, rngs=nnx.Rngs(0))
    sown = nnx.capture(nnx.Intermediate)(lambda layer: layer(x, sow_weights=True))(layer)[1]
    weights = attention_weights_heads(layer.query(x), layer.key(x), layer.value(x))
    check_close(weights, sown["attention_weights"][0])


def flax_11():
    """Step t over a cache equals row t of Flax's causal pass."""
    full = flax_attention(SELF, KK, V, mask=linen.make_causal_mask(np.ones((B, S))))
    step = jax.jit(lambda x, t: attend_heads(x, KK, V, mask=masks.causal(), query_positions=t[None]))
    for t in range(S):
        check_close(step(SELF[:, t : t + 1], jnp.array(t)), full[:, t : t + 1])
