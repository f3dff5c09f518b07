"""The rows of FlexAttention: score and mask functions, block masks, the logsumexp."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.attention.flex_attention import AuxRequest, and_masks, create_block_mask, flex_attention, or_masks

from jax_attention import attend, attend_heads, attend_with_stats, masks, mods
from tests.coming_from.operands import FEW_K, FEW_V, B, N, Q, S, T, few_k, few_v, k, q, same, tensors, v

h_ = jnp.arange(N)[:, None, None]


def flex(*arrays, mask_mod=None, **options):
    block_mask = mask_mod and create_block_mask(mask_mod, B, N, arrays[0].shape[2], S, device="cpu")
    return flex_attention(*tensors(*arrays), block_mask=block_mask, **options)


def table_of(wrap):
    return wrap(np.linspace(-1, 1, N * (T + S), dtype=np.float32).reshape(N, -1))


def flex_1():
    same(attend(q, k, v), flex(q, k, v))


def flex_2():
    ours = attend(q, k, v, mods=(lambda s, q, k: s - 0.1 * (q - k),))
    same(ours, flex(q, k, v, score_mod=lambda s, b, h, q, k: s - 0.1 * (q - k)))


def flex_3():
    mine, theirs = table_of(jnp.asarray), table_of(torch.tensor)

    def ours(table):
        return attend(q, k, v, mods=(lambda s, q, k: s + table[h_, q - k + S - 1],))

    same(ours(mine), flex(q, k, v, score_mod=lambda s, b, h, q, k: s + theirs[h, q - k + S - 1]))
    assert np.all(np.isfinite(jax.grad(lambda table: ours(table)[..., 0].sum())(mine)))


def flex_4():
    theirs = flex(q, k, v, mask_mod=lambda b, h, q, k: q >= k)
    same(attend(q, k, v, mask=lambda q, k: q >= k), theirs)
    same(attend(q, k, v, mask=masks.causal()), theirs)


def flex_5():
    f, g = (lambda q, k: q >= k), (lambda q, k: (q + k) % 2 == 0)
    their_f, their_g = (lambda b, h, q, k: f(q, k)), (lambda b, h, q, k: g(q, k))
    same(attend(q, k, v, mask=masks.as_mask(f) & g), flex(q, k, v, mask_mod=and_masks(their_f, their_g)))
    same(attend(q, k, v, mask=masks.as_mask(f) | g), flex(q, k, v, mask_mod=or_masks(their_f, their_g)))


def flex_6():
    """A mask made for one length serves every other."""
    mask = masks.causal() & (lambda q, k: q - k < 2)
    for queries in (q, k):
        same(attend(queries, k, v, mask=mask), flex(queries, k, v, mask_mod=lambda b, h, q, k: (q >= k) & (q - k < 2)))


def flex_7():
    blocks = np.array([[1, 0, 1], [1, 1, 0]], bool)
    theirs = torch.tensor(blocks)
    ours = attend(q, k, v, mask=masks.block_sparse(blocks, 2))
    same(ours, flex(q, k, v, mask_mod=lambda b, h, q, k: theirs[q // 2, k // 2]))


def flex_8():
    documents = np.array([[0, 0, 1, 1, 2], [5, 5, 5, 5, 6]])
    theirs = torch.tensor(documents)
    ours = attend(k, k, v, mask=masks.segments(documents[:, None]))
    same(ours, flex(k, k, v, mask_mod=lambda b, h, q, k: theirs[b, q] == theirs[b, k]))


def flex_9():
    ours = attend(q, k, v, mask=masks.causal() | masks.prefix(2))
    same(ours, flex(q, k, v, mask_mod=lambda b, h, q, k: (q >= k) | (k < 2)))


def flex_10():
    ours = attend(q, k, v, mods=(mods.soft_cap(0.7),))
    same(ours, flex(q, k, v, score_mod=lambda s, b, h, q, k: 0.7 * torch.tanh(s / 0.7)))


def flex_11():
    theirs, aux = flex(q, k, v, mask_mod=lambda b, h, q, k: q >= k, return_aux=AuxRequest(lse=True))
    ours = attend_with_stats(q, k, v, mask=masks.causal())
    same(ours.output, theirs)
    same(ours.logsumexp, aux.lse)


def flex_12():
    same(jnp.swapaxes(attend_heads(Q, FEW_K, FEW_V), 1, 2), flex(q, few_k, few_v, enable_gqa=True))
