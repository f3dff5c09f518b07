"""E4: why a block adds its input to its output: gradient norms by depth, with residual connections and without.

The layers are those of the library: attention, then feed-forward, each with or without a norm before it, each added to
its input or not. Residual and norm are traced arguments, so all kinds share one compiled program. Residuals without a
norm are left out: the stream grows in every layer until the squares of gradients overflow float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.inside_a_transformer.config import DepthConfig
from jax_attention import masks, nn


class Kind(NamedTuple):
    """Connections around attention and feed-forward."""

    residual: bool
    norm: bool


KINDS = {
    "residual and norm": Kind(True, True),
    "norm, no residual": Kind(False, True),
    "neither": Kind(False, False),
}


def run(config: DepthConfig) -> dict[str, np.ndarray]:
    """Gradient norms of the parameters of each layer, `[seeds, depth]`, at initial parameters."""
    keys = jnp.stack([jax.random.key(seed) for seed in config.seeds])
    over_seeds = jax.jit(jax.vmap(lambda kind, rng: gradient_norms(config, kind, rng), in_axes=(None, 0)))
    return {name: np.asarray(over_seeds(kind, keys)) for name, kind in KINDS.items()}


def gradient_norms(config: DepthConfig, kind: Kind, rng: jax.Array) -> jax.Array:
    """Gradient norms `[depth]` of the mean squared distance to a random target."""
    layer_rng, x_rng, target_rng = jax.random.split(rng, 3)
    layers = jax.vmap(lambda rng: make_layer(config, rng))(jax.random.split(layer_rng, config.depth))
    x, target = (jax.random.normal(key, (config.length, config.width)) for key in (x_rng, target_rng))
    gradient = jax.grad(lambda layers: jnp.mean(jnp.square(apply_layers(layers, kind, x) - target)))(layers)
    squares = [jnp.sum(jnp.square(leaf).reshape(config.depth, -1), axis=1) for leaf in jax.tree.leaves(gradient)]
    return jnp.sqrt(sum(squares))


def make_layer(config: DepthConfig, rng: jax.Array) -> dict[str, nnx.Module]:
    """Attention and feed-forward with Flax's initial values, and a norm for each."""
    rngs = nnx.Rngs(rng)
    return {
        "attention": nn.MultiHeadAttention(config.heads, config.width, mask=masks.causal(), rngs=rngs),
        "attention_norm": nnx.LayerNorm(config.width, rngs=rngs),
        "feed_forward": nn.FeedForward(config.width, 4 * config.width, rngs=rngs),
        "feed_forward_norm": nnx.LayerNorm(config.width, rngs=rngs),
    }


def apply_layers(layers: dict[str, nnx.Module], kind: Kind, x: jax.Array) -> jax.Array:
    """Apply all layers, one after the other."""

    def step(x: jax.Array, layer: dict[str, Any]) -> tuple[jax.Array, None]:
        x = sublayer(kind, x, layer["attention"], layer["attention_norm"])
        return sublayer(kind, x, layer["feed_forward"], layer["feed_forward_norm"]), None

    return jax.lax.scan(step, x, layers)[0]


def sublayer(kind: Kind, x: jax.Array, layer: Callable, norm: Callable) -> jax.Array:
    """Attention or feed-forward with its norm and residual connection."""
    y = layer(jnp.where(kind.norm, norm(x), x))
    return jnp.where(kind.residual, x + y, y)
