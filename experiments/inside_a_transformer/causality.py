"""E5: a decoder's outputs do not depend on later inputs: their derivatives are exactly 0."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.inside_a_transformer.config import CausalConfig
from jax_attention import masks, models


class Reach(NamedTuple):
    """Norms of d output_t / d input_s, `[T, T]`, with and without the mask, and of d output_t / d memory_s."""

    masked: np.ndarray
    unmasked: np.ndarray
    memory: np.ndarray

    @property
    def above(self) -> float:
        """The largest norm above the diagonal, under the mask."""
        return float(np.triu(self.masked, 1).max())


def run(config: CausalConfig, length: int) -> Reach:
    """Masked self-attention, cross-attention to an encoder's states, feed-forward, at random inputs."""
    x, states = jax.random.normal(jax.random.key(config.seed), (2, length, config.width))
    masked, memory = jacobians(config, masks.causal(), x, states)
    unmasked, _ = jacobians(config, None, x, states)
    return Reach(masked, unmasked, memory)


def jacobians(
    config: CausalConfig, mask: masks.Mask | None, x: jax.Array, states: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """The whole Jacobian of a decoder in its input and in the encoder's states, a norm for each pair of places."""
    sizes = models.LMConfig(
        vocab_size=1,
        width=config.width,
        depth=config.depth,
        num_heads=config.heads,
        position="rotary",
        mask=mask,
        memory_size=config.width,
    )

    @jax.jit
    def norms(rng: jax.Array, x: jax.Array, states: jax.Array) -> tuple[jax.Array, ...]:
        body = bold(models.TransformerStack(sizes, rngs=nnx.Rngs(rng)), config)
        output = lambda x, states: body(x, memory=body.project_memory(states)).hidden  # noqa: E731
        found = jax.jacrev(output, argnums=(0, 1))(x, states)
        return tuple(jnp.sqrt(jnp.sum(jnp.square(jacobian), axis=(1, 3))) for jacobian in found)

    by_input, by_memory = norms(jax.random.key(config.seed), x, states)
    return np.asarray(by_input), np.asarray(by_memory)


def bold(body: models.TransformerStack, config: CausalConfig) -> models.TransformerStack:
    """With kernels of deviation `width^-1/2` in place of GPT-2's 0.02, under which words hardly look at each other."""
    return jax.tree.map(lambda x: x * (config.width**-0.5 / 0.02) if x.ndim == 2 else x, body)
