"""Operands of ones, and calls with them that are correct except for the options under test."""

from __future__ import annotations

import numpy as np

from jax_attention import attend, attend_heads

B, T, S, N, K, H = 2, 3, 5, 4, 2, 6


def ones(*shape: int, dtype=np.float32):
    return np.ones(shape, dtype)


Q, KV = ones(T, H), ones(S, H)
QH, KVH = ones(B, T, N, H), ones(B, S, K, H)


def plain(**options):
    """A call of `attend` with these options."""
    return lambda: attend(Q, KV, KV, **options)


def heads(**options):
    """A call of `attend_heads` with these options."""
    return lambda: attend_heads(QH, KVH, KVH, **options)
