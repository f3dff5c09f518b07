"""E5: the outputs of a decoder do not depend on later inputs: the derivatives are exactly 0."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.inside_a_transformer.config import CausalConfig
from jax_attention import masks, models


class JacobianNorms(NamedTuple):
    """Norms of d output_t / d input_s, `[T, T]`, with and without the mask, and of d output_t / d memory_s."""

    masked: np.ndarray
    unmasked: np.ndarray
    memory: np.ndarray

    @property
    def above_the_diagonal(self) -> float:
        """Largest norm above the diagonal, with the mask."""
        return float(np.triu(self.masked, 1).max())


def run(config: CausalConfig, length: int) -> JacobianNorms:
    """Norms for a decoder with self-attention, cross-attention and feed-forward, at random inputs."""
    x, states = jax.random.normal(jax.random.key(config.seed), (2, length, config.width))
    masked, memory = jacobian_norms(config, masks.causal(), x, states)
    unmasked, _ = jacobian_norms(config, None, x, states)
    return JacobianNorms(masked, unmasked, memory)


def jacobian_norms(
    config: CausalConfig, mask: masks.Mask | None, x: jax.Array, states: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Norms `[T, T]` of the Jacobian of a decoder with respect to its input and to the encoder's states."""
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
        stack = scale_kernels(models.TransformerStack(sizes, rngs=nnx.Rngs(rng)), config)

        def output(x: jax.Array, states: jax.Array) -> jax.Array:
            return stack(x, states)

        jacobians = jax.jacrev(output, argnums=(0, 1))(x, states)
        return tuple(jnp.sqrt(jnp.sum(jnp.square(jacobian), axis=(1, 3))) for jacobian in jacobians)

    by_input, by_memory = norms(jax.random.key(config.seed), x, states)
    return np.asarray(by_input), np.asarray(by_memory)


def scale_kernels(stack: models.TransformerStack, config: CausalConfig) -> models.TransformerStack:
    """Stack with kernels of standard deviation `width^-1/2` instead of GPT-2's 0.02.

    With 0.02, derivatives with respect to other positions are a thousand times smaller than those on the diagonal, and
    the figure shows only the diagonal.
    """
    return jax.tree.map(lambda x: x * (config.width**-0.5 / 0.02) if x.ndim == 2 else x, stack)
