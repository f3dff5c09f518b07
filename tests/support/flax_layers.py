"""Flax's multi-head layers, and masks, rules and operands to test attention functions inside them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from jax_attention import masks, mods, normalizers, positions
from tests.support.tolerances import FORWARD

B, T, N, D = 2, 5, 2, 8
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
LENGTHS = np.arange(T)[None] < np.array([[T], [3]])
CAUSAL = linen.make_causal_mask(LENGTHS)
PADDING = linen.make_attention_mask(np.ones((B, T)), LENGTHS)
MASKS = {
    "none": None,
    "causal, float": CAUSAL,
    "causal, bool": CAUSAL.astype(bool),
    "padding": PADDING,
    "both": linen.combine_masks(CAUSAL, PADDING),
    "per head": np.arange(N)[:, None, None] + np.arange(T)[:, None] >= np.arange(T),
}
RULES = {
    "default": {},
    "entmax": {"normalize": normalizers.entmax15()},
    "alibi": {"mods": (mods.alibi(positions.alibi_slopes(N)),)},
    "window": {"mask": masks.sliding_window(2)},
    "plain functions": {"mods": (lambda s, q, k: jnp.tanh(s),), "mask": lambda q, k: k != q - 1},
}
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def linen_layer(attention_fn=linen.dot_product_attention, **options):
    return linen.MultiHeadDotProductAttention(num_heads=N, attention_fn=attention_fn, **options)


@functools.cache
def linen_variables():
    """Parameters of `linen_layer()`, as large as those that Flax draws.

    NumPy draws them, because the first call may happen under a trace, and so nothing has to be compiled.
    """
    rng = np.random.default_rng(2)

    def draw(path, x):
        return np.float32(rng.normal(size=x.shape) * (D**-0.5 if path[-1].key == "kernel" else 0.01))

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(linen_layer().init, jax.random.key(0), X))


def nnx_layer(attention_fn=nnx.dot_product_attention, **options):
    """A layer with the same parameters at every call."""
    return nnx.MultiHeadAttention(N, D, attention_fn=attention_fn, rngs=nnx.Rngs(0), **{"decode": False, **options})


def operands():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(B, T, N, 4)).astype(np.float32) for _ in range(3)]
    return *arrays, rng.normal(size=(1, N, T, T)).astype(np.float32)
