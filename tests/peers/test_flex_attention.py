"""Common FlexAttention functions against parts and plain functions: output, logsumexp and gradients.

FlexAttention has no autograd on a CPU (pytorch#148752), so gradients are compared with the formula in plain torch
operations, whose output is first compared with that of `flex_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from jax_attention import attend_with_stats_heads, masks, mods, positions
from tests.support.tiers import slow_except
from tests.support.tolerances import PARITY

# The comparison is with eager execution, where torch warns that it recommends torch.compile.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")

B, T, N, K, H, E = 2, 6, 4, 2, 4, 3
CLOSE = {"rtol": PARITY, "atol": PARITY}
BLOCKS = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], bool)
DOCUMENTS = np.array([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 1]], np.int32)
PREFIXES = np.array([3, 1], np.int32)
TABLE = np.linspace(-1, 1, N * (2 * T - 1), dtype=np.float32).reshape(N, -1)
SLOPES = np.asarray(positions.alibi_slopes(N))
b_, h_ = np.arange(B)[:, None, None, None], np.arange(N)[:, None, None]
"""The arguments b and h of a FlexAttention function, as index arrays that broadcast with the positions."""


class Rule(NamedTuple):
    """One rule in three forms, each with a parameter p: parts, plain functions, and functions for FlexAttention."""

    parts: Callable[[Any], dict]
    plain: Callable[[Any], dict]
    score_mod: Callable | None = None
    mask_mod: Callable | None = None
    parameter: np.ndarray = np.zeros(())


def relative_bias(table):
    """One learned number per head and offset. No part of the library does this; a plain function takes two lines."""
    return {"mods": (lambda s, q, k: s + table[h_, q - k + T - 1],)}


RULES = {
    "full": Rule(lambda p: {}, lambda p: {}),
    "causal": Rule(
        lambda p: {"mask": masks.causal()},
        lambda p: {"mask": lambda q, k: q >= k},
        mask_mod=lambda p: lambda b, h, q, k: q >= k,
    ),
    "sliding window": Rule(  # three keys: two before the query, and the one at its position
        lambda p: {"mask": masks.sliding_window(3)},
        lambda p: {"mask": lambda q, k: (q >= k) & (q - k <= 2)},
        mask_mod=lambda p: lambda b, h, q, k: (q >= k) & (q - k <= 2),
    ),
    "prefix LM": Rule(
        lambda p: {"mask": masks.causal() | masks.prefix(p[:, None])},
        lambda p: {"mask": lambda q, k: (q >= k) | (k < p[b_])},
        mask_mod=lambda p: lambda b, h, q, k: (q >= k) | (k < p[b]),
        parameter=PREFIXES,
    ),
    "documents, causal": Rule(
        lambda p: {"mask": masks.segments(p[:, None]) & masks.causal()},
        lambda p: {"mask": lambda q, k: (p[b_, q] == p[b_, k]) & (q >= k)},
        mask_mod=lambda p: lambda b, h, q, k: (p[b, q] == p[b, k]) & (q >= k),
        parameter=DOCUMENTS,
    ),
    "dilated": Rule(
        lambda p: {"mask": masks.dilated(2) & masks.causal()},
        lambda p: {"mask": lambda q, k: ((q - k) % 2 == 0) & (q >= k)},
        mask_mod=lambda p: lambda b, h, q, k: ((q - k) % 2 == 0) & (q >= k),
    ),
    "block sparse": Rule(
        lambda p: {"mask": masks.block_sparse(p, 2)},
        lambda p: {"mask": lambda q, k: p[q // 2, k // 2]},
        mask_mod=lambda p: lambda b, h, q, k: p[q // 2, k // 2],
        parameter=BLOCKS,
    ),
    "empty rows": Rule(  # pytorch#41508
        lambda p: {"mask": masks.causal(offset=-2)},
        lambda p: {"mask": lambda q, k: q - 2 >= k},
        mask_mod=lambda p: lambda b, h, q, k: q - 2 >= k,
    ),
    "ALiBi, causal": Rule(
        lambda p: {"mods": (mods.alibi(p),), "mask": masks.causal()},
        lambda p: {"mods": (lambda s, q, k: s - p[h_] * (q - k),), "mask": lambda q, k: q >= k},
        score_mod=lambda p: lambda s, b, h, q, k: s - p[h] * (q - k),
        mask_mod=lambda p: lambda b, h, q, k: q >= k,
        parameter=SLOPES,
    ),
    "relative bias": Rule(  # a learned table: attention-gym#20, pytorch#145208
        relative_bias, relative_bias, score_mod=lambda p: lambda s, b, h, q, k: s + p[h, q - k + T - 1], parameter=TABLE
    ),
    "soft cap": Rule(
        lambda p: {"mods": (mods.soft_cap(p),)},
        lambda p: {"mods": (lambda s, q, k: p * jnp.tanh(s / p),)},
        score_mod=lambda p: lambda s, b, h, q, k: p * torch.tanh(s / p),
        parameter=np.float32(1.5),
    ),
    "soft cap, then ALiBi, in a window": Rule(
        lambda p: {"mods": (mods.soft_cap(2.0), mods.alibi(p)), "mask": masks.sliding_window(4)},
        lambda p: {
            "mods": (lambda s, q, k: 2 * jnp.tanh(s / 2) - p[h_] * abs(q - k),),
            "mask": lambda q, k: (q >= k) & (q - k < 4),
        },
        score_mod=lambda p: lambda s, b, h, q, k: 2 * torch.tanh(s / 2) - p[h] * (q - k).abs(),
        mask_mod=lambda p: lambda b, h, q, k: (q >= k) & (q - k < 4),
        parameter=SLOPES,
    ),
}


def inputs(kv_heads: int):
    """Query, key, value in torch's layout `[B, heads, T, size]`, and the cotangent of the output."""
    rng = np.random.default_rng(1)
    shapes = (B, N, T, H), (B, kv_heads, T, H), (B, kv_heads, T, E), (B, N, T, E)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def flex_result(rule: Rule, q, k, v, p):
    """Output and logsumexp of `flex_attention`, without compilation, on the CPU."""
    block_mask = rule.mask_mod and create_block_mask(rule.mask_mod(p), B, N, T, T, device="cpu")
    out, aux = flex_attention(
        *(q, k, v),
        score_mod=rule.score_mod and rule.score_mod(p),
        block_mask=block_mask,
        enable_gqa=q.shape[1] != k.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    return out, aux.lse


def dense_torch(rule: Rule, q, k, v, p):
    """The formula in plain torch operations, which have autograd on a CPU."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    b, h, i, j = (
        torch.arange(n).reshape([-1 if a == axis else 1 for a in range(4)]) for axis, n in enumerate((B, N, T, T))
    )
    z = q @ k.mT / H**0.5
    z = rule.score_mod(p)(z, b, h, i, j) if rule.score_mod else z
    allowed = torch.as_tensor(rule.mask_mod(p)(b, h, i, j) if rule.mask_mod else True)
    z = torch.where(allowed, z, -torch.inf)
    weights = torch.exp(z - z.detach().amax(-1, True).clamp(min=-1e3))  # clamp: -inf - -inf in an empty row is NaN
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30) @ v


def jax_result(rule: Rule, rule_of: Callable, q, k, v, p, cotangent):
    """Output, logsumexp, and gradients by query, key, value and a floating-point parameter, in torch's layout."""
    p = jnp.asarray(p)

    @jax.jit
    def run(q, k, v, p):
        def attention(q, k, v, p):
            out, lse, *_ = attend_with_stats_heads(
                *(jnp.swapaxes(x, 1, 2) for x in (q, k, v)), precision="highest", **rule_of(p)
            )
            return jnp.swapaxes(out, 1, 2), jnp.swapaxes(lse, 1, 2)

        if not jnp.issubdtype(p.dtype, jnp.floating):
            out, pull, lse = jax.vjp(lambda q, k, v: attention(q, k, v, p), q, k, v, has_aux=True)
        else:
            out, pull, lse = jax.vjp(attention, q, k, v, p, has_aux=True)
        return out, lse, pull(cotangent)

    return run(q, k, v, p)


def check(rule: Rule, kv_heads: int):
    *arrays, cotangent = inputs(kv_heads)
    tensors = [torch.tensor(x) for x in (*arrays, rule.parameter)]
    flex, flex_lse = (x.numpy() for x in flex_result(rule, *tensors))
    floating = [x.requires_grad_() for x in tensors if x.is_floating_point()]
    dense = dense_torch(rule, *tensors)
    np.testing.assert_allclose(dense.detach().numpy(), flex, **CLOSE)
    expected = torch.autograd.grad(dense, floating, torch.tensor(cotangent), materialize_grads=True)
    for rule_of in (rule.parts, rule.plain):
        out, lse, gradients = jax_result(rule, rule_of, *arrays, rule.parameter, cotangent)
        np.testing.assert_allclose(out, flex, **CLOSE)
        np.testing.assert_allclose(lse, flex_lse, **CLOSE)
        for jax_gradient, torch_gradient in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(jax_gradient, torch_gradient.numpy(), **CLOSE)


QUICK = ("empty rows", "relative bias")
GROUPED = ("full", "documents, causal", "relative bias", "soft cap, then ALiBi, in a window")


@pytest.mark.parametrize("name", slow_except(QUICK, RULES))
def test_rule(name):
    check(RULES[name], N)


@pytest.mark.parametrize("name", slow_except(("soft cap, then ALiBi, in a window",), GROUPED))
def test_grouped_queries(name):
    check(RULES[name], K)


def test_flex_still_has_no_gradients_on_a_cpu():
    """Once this test fails, compare gradients with `flex_attention` directly (pytorch#148752)."""
    q = torch.ones(1, 1, 2, 4, requires_grad=True)
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        flex_attention(q, q, q)
