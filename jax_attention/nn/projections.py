"""The three input projections of multi-head attention, in separate kernels or in one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.nn.linear import Linear


class SeparateProjections(nnx.Module):
    """Three linear layers: `query`, `key`, `value`."""

    def __init__(self, sizes: tuple[int, int, int], heads: tuple[int, int, int], **options: Any):
        self.query, self.key, self.value = (
            Linear(size, width, **options) for size, width in zip(sizes, heads, strict=True)
        )

    def __call__(
        self, query: jax.Array, key: jax.Array | None, value: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project the three inputs; None for key is self-attention, None for value takes key."""
        key = query if key is None else key
        return (self.project_query(query), *self.project_key_value(key, value))

    def project_query(self, query: jax.Array) -> jax.Array:
        """Project a query without key and value."""
        return _project("query", self.query, query)

    def project_key_value(self, key: jax.Array, value: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Project a key and a value without the query; None for value takes key."""
        return _project("key", self.key, key), _project("value", self.value, key if value is None else value)


class PackedProjections(nnx.Module):
    """One linear layer whose columns are query, key and value; self-attention is a single product."""

    def __init__(self, size: int, heads: tuple[int, int, int], **options: Any):
        # Named in checkpoints of every version: do not rename.
        self.joined = Linear(size, sum(heads), **options)
        self.ends = (heads[0], heads[0] + heads[1])

    def __call__(
        self, query: jax.Array, key: jax.Array | None, value: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project the three inputs; None for key is self-attention, None for value takes key."""
        if key is None:
            return tuple(jnp.split(self.joined(query), self.ends, axis=-1))
        return (self.project_query(query), *self.project_key_value(key, value))

    def project_query(self, query: jax.Array) -> jax.Array:
        """Project a query without key and value."""
        return self.joined.columns(query, slice(self.ends[0]))

    def project_key_value(self, key: jax.Array, value: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Project a key and a value without the query; None for value takes key."""
        first, second = self.ends
        value = key if value is None else value
        return self.joined.columns(key, slice(first, second)), self.joined.columns(value, slice(second, None))


def _project(name: str, linear: Linear, x: jax.Array) -> jax.Array:
    if x.shape[-1] != linear.in_features:
        raise ValueError(
            f"{name}: expected {linear.in_features} features in the last axis, got shape {x.shape}. "
            "A missing key is the query, a missing value the key; sizes are key_size= and value_size= of the layer."
        )
    return linear(x)
