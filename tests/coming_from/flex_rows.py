"""The rows of FlexAttention: score and mask functions, block masks, the logsumexp."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn.attention.flex_attention import AuxRequest, and_masks, create_block_mask, flex_attention, or_masks

from jax_attention import attend, attend_heads, attend_with_stats, masks, mods
from tests.coming_from.operands import FEW_K, FEW_V, B, N, Q, S, T, check_close, few_k, few_v, k, q, tensors, v

h_ = jnp.arange(N)[:, None, None]


def flex(*arrays, mask_mod=None, **options):
    block_mask = mask_mod and create_block_mask(mask_mod, B, N, arrays[0].shape[2], S, device="cpu")
    return flex_attention(*tensors(*arrays), block_mask=block_mask, **options)


def table_of(wrap):
    return wrap(np.linspace(-1, 1, N * (T + S), dtype=np.float32).reshape(N, -1))


def flex_1():
    check_close(attend(q, k, v), flex(q, k, v))


def flex_2():
    jax_output = attend(q, k, v, mods=(lambda s, q, k: s - 0.1 * (q - k),))
    check_close(jax_output, flex(q, k, v, score_mod=lambda s, b, h, q, k: s - 0.1 * (q - k)))


def flex_3():
    jax_table, torch_table = table_of(jnp.asarray), table_of(torch.tensor)

    def output_of(table):
        return attend(q, k, v, mods=(lambda s, q, k: s + table[h_, q - k + S - 1],))

    check_close(output_of(jax_table), flex(q, k, v, score_mod=lambda s, b, h, q, k: s + torch_table[h, q - k + S - 1]))
    assert np.all(np.isfinite(jax.grad(lambda table: output_of(table)[..., 0].sum())(jax_table)))


def flex_4():
    flex_output = flex(q, k, v, mask_mod=lambda b, h, q, k: q >= k)
    check_close(attend(q, k, v, mask=lambda q, k: q >= k), flex_output)
    check_close(attend(q, k, v, mask=masks.causal()), flex_output)


def flex_5():
    f, g = (lambda q, k: q >= k), (lambda q, k: (q + k) % 2 == 0)
    flex_f, flex_g = (lambda b, h, q, k: f(q, k)), (lambda b, h, q, k: g(q, k))
    check_close(attend(q, k, v, mask=masks.as_mask(f) & g), flex(q, k, v, mask_mod=and_masks(flex_f, flex_g)))
    check_close(attend(q, k, v, mask=masks.as_mask(f) | g), flex(q, k, v, mask_mod=or_masks(flex_f, flex_g)))


def flex_6():
    """One mask serves every length."""
    mask = masks.causal() & (lambda q, k: q - k < 2)
    for queries in (q, k):
        check_close(
            attend(queries, k, v, mask=mask), flex(queries, k, v, mask_mod=lambda b, h, q, k: (q >= k) & (q - k < 2))
        )


def flex_7():
    blocks = np.array([[1, 0, 1], [1, 1, 0]], bool)
    torch_blocks = torch.tensor(blocks)
    jax_output = attend(q, k, v, mask=masks.block_sparse(blocks, 2))
    check_close(jax_output, flex(q, k, v, mask_mod=lambda b, h, q, k: torch_blocks[q // 2, k // 2]))


def flex_8():
    documents = np.array([[0, 0, 1, 1, 2], [5, 5, 5, 5, 6]])
    torch_documents = torch.tensor(documents)
    jax_output = attend(k, k, v, mask=masks.segments(documents[:, None]))
    check_close(jax_output, flex(k, k, v, mask_mod=lambda b, h, q, k: torch_documents[b, q] == torch_documents[b, k]))


def flex_9():
    jax_output = attend(q, k, v, mask=masks.causal() | masks.prefix(2))
    check_close(jax_output, flex(q, k, v, mask_mod=lambda b, h, q, k: (q >= k) | (k < 2)))


def flex_10():
    jax_output = attend(q, k, v, mods=(mods.soft_cap(0.7),))
    check_close(jax_output, flex(q, k, v, score_mod=lambda s, b, h, q, k: 0.7 * torch.tanh(s / 0.7)))


def flex_11():
    flex_output, aux = flex(q, k, v, mask_mod=lambda b, h, q, k: q >= k, return_aux=AuxRequest(lse=True))
    output, logsumexp, *_ = attend_with_stats(q, k, v, mask=masks.causal())
    check_close(output, flex_output)
    check_close(logsumexp, aux.lse)


def flex_12():
    check_close(jnp.swapaxes(attend_heads(Q, FEW_K, FEW_V), 1, 2), flex(q, few_k, few_v, enable_gqa=True))
