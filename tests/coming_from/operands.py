"""Operands of all rows, heads first for PyTorch and heads last for the others, and the comparison of outputs."""

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
"""Queries with T = S, heads last."""
CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def check_close(jax_output, peer_output):
    """Check that two outputs are equal up to rounding; the second may be a torch tensor."""
    peer_output = peer_output.detach().numpy() if isinstance(peer_output, torch.Tensor) else peer_output
    np.testing.assert_allclose(jax_output, peer_output, **CLOSE)


def tensors(*arrays):
    return [torch.tensor(np.ascontiguousarray(x)) for x in arrays]
