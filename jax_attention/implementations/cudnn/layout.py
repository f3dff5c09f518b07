"""Batch dimensions in the layout of the kernel: batch, and N query heads that share K key heads in groups of G."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.implementations.call import AttentionCall


class Layout(NamedTuple):
    """Batch dimensions, split into `(*batch, *heads, *groups)`."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    groups: tuple[int, ...]

    def queries(self, x: jax.Array) -> jax.Array:
        """`[*batch, T, H] -> [B, T, N, H]`."""
        return self._fold(x, self.heads + self.groups)

    def keys(self, x: jax.Array) -> jax.Array:
        """`[*batch, S, H] -> [B, S, K, H]`; no key is repeated for its group."""
        rank = len(self.batch + self.heads)
        return self._fold(x.reshape(x.shape[:rank] + x.shape[-2:]), self.heads)

    def _fold(self, x: jax.Array, heads: tuple[int, ...]) -> jax.Array:
        rows = x.shape[-2:]
        x = jnp.broadcast_to(x, self.batch + heads + rows)
        return jnp.swapaxes(x.reshape(math.prod(self.batch), math.prod(heads), *rows), 1, 2)

    def per_batch(self, x: jax.Array | None) -> jax.Array | None:
        """Numbers `[*batch]`, the same for all heads, as `[B]`."""
        if x is None:
            return None
        return jnp.broadcast_to(x.reshape(x.shape[: len(self.batch)]), self.batch).reshape(-1)

    def restore(self, x: jax.Array) -> jax.Array:
        """`[B, T, N, E] -> [*batch, T, E]`."""
        x = jnp.swapaxes(x, 1, 2)
        return x.reshape(self.batch + self.heads + self.groups + x.shape[-2:])


def layout_of(call: AttentionCall, lengths: jax.Array | None) -> Layout:
    """Split the batch dimensions: the last ones that share keys are groups, the one before is heads, the rest is batch.

    Lengths are a property of the batch, so the heads begin after the last dimension in which lengths differ.
    """
    shape = call.batch_shape
    shared = jnp.broadcast_shapes(call.key.shape[:-2], call.value.shape[:-2])
    batch = 0 if lengths is None else max((n for n, size in enumerate(lengths.shape, 1) if size > 1), default=0)
    groups = len(shape)
    while groups > batch and shared[groups - 1] == 1:
        groups -= 1
    heads = max(groups - 1, batch)
    return Layout(shape[:heads], shape[heads:groups], shape[groups:])
