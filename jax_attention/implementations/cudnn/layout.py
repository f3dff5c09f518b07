"""Leading axes as the kernel has them: batch, and N query heads that share K keys in groups of G."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.implementations.problem import Problem


class Layout(NamedTuple):
    """Leading axes `(*batch, *heads, *groups)`."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    groups: tuple[int, ...]

    def queries(self, x: jax.Array) -> jax.Array:
        """`[*lead, T, H] -> [B, T, N, H]`."""
        return self._folded(x, self.heads + self.groups)

    def keys(self, x: jax.Array) -> jax.Array:
        """`[*lead, S, H] -> [B, S, K, H]`; no key is repeated for its group."""
        kept = len(self.batch + self.heads)
        return self._folded(x.reshape(x.shape[:kept] + x.shape[-2:]), self.heads)

    def _folded(self, x: jax.Array, heads: tuple[int, ...]) -> jax.Array:
        rows = x.shape[-2:]
        x = jnp.broadcast_to(x, self.batch + heads + rows)
        return jnp.swapaxes(x.reshape(math.prod(self.batch), math.prod(heads), *rows), 1, 2)

    def per_batch(self, x: jax.Array | None) -> jax.Array | None:
        """Numbers `[*lead]`, the same for all heads, as `[B]`."""
        if x is None:
            return None
        return jnp.broadcast_to(x.reshape(x.shape[: len(self.batch)]), self.batch).reshape(-1)

    def restored(self, x: jax.Array) -> jax.Array:
        """`[B, T, N, E] -> [*lead, T, E]`."""
        x = jnp.swapaxes(x, 1, 2)
        return x.reshape(self.batch + self.heads + self.groups + x.shape[-2:])


def layout_of(problem: Problem, lengths: jax.Array | None) -> Layout:
    """The last axes that share keys are groups, the one before is heads, the rest is batch, to which lengths belong."""
    lead = problem.lead
    shared = jnp.broadcast_shapes(problem.key.shape[:-2], problem.value.shape[:-2])
    batch = 0 if lengths is None else max((n for n, size in enumerate(lengths.shape, 1) if size > 1), default=0)
    groups = len(lead)
    while groups > batch and shared[groups - 1] == 1:
        groups -= 1
    heads = max(groups - 1, batch)
    return Layout(lead[:heads], lead[heads:groups], lead[groups:])
