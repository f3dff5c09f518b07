"""The rows of Flash-Attention, compared with its documented formula, because its kernels need a GPU."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np

from jax_attention import attend_heads, attend_with_stats_heads, masks, mods, positions, scores
from tests.coming_from.operands import FEW_K, FEW_V, KK, SELF, H, N, Q, S, T, V, check_close


def formula(q, k, v, allowed=True, modify_scores=lambda z: z, scale=H**-0.5):
    """Output and logsumexp of Flash-Attention in float64 NumPy, heads last."""
    groups = q.shape[2] // k.shape[2]
    k, v = np.repeat(k, groups, axis=2), np.repeat(v, groups, axis=2)
    z = modify_scores(np.einsum("btnh,bsnh->bnts", q.astype(np.float64), k) * scale)
    w = np.where(allowed, np.exp(z), 0)
    total = w.sum(-1, keepdims=True)
    out = np.einsum("bnts,bsnh->btnh", w / np.where(total > 0, total, 1), v)
    with np.errstate(divide="ignore"):  # an empty row has the logsumexp -inf
        return out, np.log(total[..., 0])


t_, s_ = np.arange(T)[:, None], np.arange(S)
END = t_ + S - T
"""Position of the last causal key of each query, if the ends of the two sequences are aligned."""


def flash_1():
    check_close(attend_heads(Q, FEW_K, FEW_V), formula(Q, FEW_K, FEW_V)[0])


def flash_2():
    check_close(attend_heads(Q, KK, V, mask=masks.causal(S - T)), formula(Q, KK, V, s_ <= END)[0])
    last_key = np.arange(S)[:, None] + T - S  # more queries than keys: the first rows are empty, 0 in both
    check_close(attend_heads(KK, Q, Q, mask=masks.causal(T - S)), formula(KK, Q, Q, np.arange(T) <= last_key)[0])


def flash_3():
    assert masks.from_flash_window((1, 1), T, S) == masks.sliding_window(2, 1, offset=S - T)
    for left, right in [(1, 1), (0, 2), (-1, 0), (1, -1)]:
        allowed = ((left < 0) | (s_ >= END - left)) & ((right < 0) | (s_ <= END + right))
        jax_output = attend_heads(Q, KK, V, mask=masks.from_flash_window((left, right), T, S))
        check_close(jax_output, formula(Q, KK, V, allowed)[0])


def flash_4():
    jax_output = attend_heads(Q, KK, V, mask=masks.from_flash_window((1, 2), T, S, causal=True))
    check_close(jax_output, formula(Q, KK, V, (s_ >= END - 1) & (s_ <= END))[0])


def flash_5():
    jax_output = attend_heads(Q, KK, V, mods=(mods.soft_cap(0.8),))
    check_close(jax_output, formula(Q, KK, V, modify_scores=lambda z: 0.8 * np.tanh(z / 0.8))[0])


def flash_6():
    per_head = np.asarray(positions.alibi_slopes(N))
    for slopes in (per_head, per_head * np.array([[1.0], [0.5]], np.float32)):
        jax_output = attend_heads(Q, KK, V, mods=(mods.alibi(slopes),), query_positions=jnp.arange(T) + S - T)
        flash_output, _ = formula(Q, KK, V, modify_scores=lambda z, m=slopes: z - m[..., None, None] * np.abs(END - s_))
        check_close(jax_output, flash_output)


def flash_7():
    check_close(attend_heads(Q, KK, V, score=scores.scaled_dot(0.2)), formula(Q, KK, V, scale=0.2)[0])


def flash_8():
    """Two documents of lengths 2 and 3 in one row have the outputs that each has alone."""
    bounds, ids = np.array([0, 2, S]), np.array([0, 0, 1, 1, 1])
    jax_output = attend_heads(SELF[0], KK[0], V[0], mask=masks.segments(ids) & masks.causal())
    for start, end in itertools.pairwise(bounds):
        document = [x[:1, start:end] for x in (SELF, KK, V)]
        check_close(jax_output[start:end], formula(*document, np.tri(end - start, dtype=bool))[0][0])


def flash_9():
    logsumexp = attend_with_stats_heads(Q, KK, V, mask=masks.causal(S - T)).logsumexp
    check_close(np.swapaxes(logsumexp, 1, 2), formula(Q, KK, V, s_ <= END)[1])
