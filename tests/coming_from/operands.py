"""The operands of every row, heads first for PyTorch and heads last for the others, and what equal means."""

from __future__ import annotations

import numpy as np
import torch

from tests.support.tolerances import FORWARD

B, T, S, N, K, H = 2, 3, 5, 4, 2, 8
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


q, k, v = normal(B, N, T, H), normal(B, N, S, H), normal(B, N, S, H)
"""Heads first, as in PyTorch."""
Q, KK, V = (np.swapaxes(x, 1, 2) for x in (q, k, v))
"""Heads last, as in jax.nn, Flax and Flash-Attention."""
few_k, few_v = k[:, :K], v[:, :K]
FEW_K, FEW_V = KK[:, :, :K], V[:, :, :K]
BIAS = normal(N, T, S)
ALLOWED = (RNG.random((B, N, T, S)) < 0.6) | (np.arange(S) == 0)
SELF = np.swapaxes(normal(B, N, S, H), 1, 2)
"""Queries for T = S, heads last."""
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def same(ours, theirs):
    """Equal to rounding; a torch tensor is detached."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, **CLOSE)


def tensors(*arrays):
    return [torch.tensor(np.ascontiguousarray(x)) for x in arrays]
