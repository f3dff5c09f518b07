"""Operands of other ranks or batches are refused by the adapter, as by Flax."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from flax import nnx

from jax_attention import flax_attention_fn


@pytest.mark.parametrize(
    "shapes", [((2, 16, 4, 8), (16, 4, 8)), ((2, 16, 4, 8), (1, 16, 4, 8)), ((16, 4, 8), (2, 16, 4, 8))]
)
def test_batches_that_would_broadcast_are_refused(shapes):
    query, key = map(jnp.ones, shapes)
    with pytest.raises(ValueError, match="query, key, value: expected the same batch dimensions, as in Flax"):
        flax_attention_fn()(query, key, key)
    with pytest.raises((AssertionError, ValueError, TypeError)):
        nnx.dot_product_attention(query, key, key)
