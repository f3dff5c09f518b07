"""The rows of x-transformers: its `Attend` with the options of its layers, its position biases and rotations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
from x_transformers.attend import Attend
from x_transformers.x_transformers import (
    AlibiPositionalBias,
    Attention,
    DataDependentAlibi,
    RelativePositionBias,
    RotaryEmbedding,
    apply_rotary_pos_emb,
    l2norm,
)

from jax_attention import attend, attention_weights, masks, mods, normalizers, positions, scores
from tests.coming_from.operands import BIAS, B, H, K, N, S, T, check_close, few_k, few_v, k, normal, q, tensors, v

AT_THE_END = jnp.arange(T) + S - T
"""Positions of the queries where the ends of the two sequences are aligned, as x-transformers does."""
ROW_MASK = np.arange(S) < np.array([[2], [S]])


def xt(*arrays, mask=None, attn_bias=None, **options):
    """Output of x-transformers' `Attend`."""
    attn_bias = None if attn_bias is None else torch.as_tensor(attn_bias)
    mask = None if mask is None else torch.tensor(mask)
    return Attend(heads=N, **options)(*tensors(*arrays), mask=mask, attn_bias=attn_bias)[0]


def xt_1():
    check_close(attend(q, k, v), xt(q, k, v))
    check_close(attend(q, k, v), xt(q, k, v, flash=True))


def xt_2():
    for t in (1, T):  # one query after a cache sees all keys in both
        check_close(attend(q[:, :, :t], k, v, mask=masks.causal(S - t)), xt(q[:, :, :t], k, v, causal=True))


def xt_3():
    check_close(attend(q, k, v, mask=masks.dense(ROW_MASK[:, None, None])), xt(q, k, v, mask=ROW_MASK))


def xt_4():
    check_close(attend(q, k, v, mods=(mods.bias(BIAS),)), xt(q, k, v, attn_bias=BIAS))


def xt_5():
    check_close(attend(q, k, v, score=scores.scaled_dot(0.2)), xt(q, k, v, scale=0.2))


def xt_6():
    tiled = (jnp.tile(x, (1, N // K, 1, 1)) for x in (few_k, few_v))
    check_close(attend(q, *tiled), xt(q, few_k, few_v))


def xt_7():
    options = {"softclamp_logits": True, "logit_softclamp_value": 0.5}
    check_close(attend(q, k, v, mods=(mods.bias(BIAS), mods.soft_cap(0.5))), xt(q, k, v, attn_bias=BIAS, **options))


def xt_8():
    jax_output = attend(q, k, v, mods=(mods.alibi(positions.alibi_slopes(N)),), query_positions=AT_THE_END)
    check_close(jax_output, xt(q, k, v, attn_bias=AlibiPositionalBias(N)(T, S)))


def xt_9():
    for causal in (True, False):
        peer = RelativePositionBias(scale=H**0.5, causal=causal, num_buckets=8, max_distance=6, heads=N)
        table = peer.relative_attention_bias.weight.detach().numpy()
        mod = mods.relative(H**0.5 * table.T, max_distance=6, bidirectional=not causal)
        mask = masks.causal() if causal else None
        jax_output = attend(q, k, v, mods=(mod,), mask=mask, query_positions=AT_THE_END)
        check_close(jax_output, xt(q, k, v, attn_bias=peer(T, S).detach(), causal=causal))


def xt_10():
    (x,) = tensors(k)
    check_close(
        positions.rotary(size=4, style="interleaved")(k, jnp.arange(S)),
        apply_rotary_pos_emb(x, *RotaryEmbedding(4).forward_from_seq_len(S)),
    )


def xt_11():
    peer_q, peer_k = (l2norm(x) for x in tensors(q, k))
    check_close(attend(q, k, v, score=scores.cosine(10.0)), xt(peer_q, peer_k, v, qk_norm=True, scale=10.0))


def xt_12():
    check_close(attend(q, k, v, score=scores.l2(H**-0.5)), xt(q, k, v, l2_distance=True))


def xt_13():
    check_close(attend(q, k, v, normalize=normalizers.sigmoid()), xt(q, k, v, sigmoid=True))


def xt_14():
    peer_q, peer_k, peer_v = tensors(q, k, v)
    peer_q.requires_grad_()
    peer_output = Attend(heads=N, hard=True)(peer_q, peer_k, peer_v)[0]
    jax_output, pull_back = jax.vjp(lambda query: attend(query, k, v, normalize=normalizers.hard()), q)
    check_close(jax_output, peer_output)
    check_close(pull_back(jnp.ones_like(jax_output))[0], torch.autograd.grad(peer_output.sum(), peer_q)[0])


def xt_15():
    peer, sinks = Attend(heads=N, head_learned_sink=True), normal(N)
    peer.head_attn_sink.data = torch.tensor(sinks)
    check_close(attend(q, k, v, normalize=normalizers.softmax(sinks)), peer(*tensors(q, k, v))[0])


def xt_16():
    check_close(attend(q, k, v, normalize=normalizers.softmax(plus_one=True)), xt(q, k, v, add_zero_kv=True))


def xt_17():
    peer = Attention(dim=N * H, dim_head=H, heads=N, causal=True, max_attend_past=1)
    peer.to_out = torch.nn.Identity()
    (x,) = tensors(normal(B, T, N * H))
    projected = (
        layer(x).detach().numpy().reshape(B, T, N, H).swapaxes(1, 2) for layer in (peer.to_q, peer.to_k, peer.to_v)
    )
    jax_output = attend(*projected, mask=masks.sliding_window(1 + 1))
    check_close(jnp.swapaxes(jax_output, 1, 2).reshape(B, T, N * H), peer(x))


def xt_18():
    _, intermediates = Attend(heads=N, causal=True)(*tensors(q, k, v))
    check_close(attention_weights(q, k, v, mask=masks.causal(S - T)), intermediates.post_softmax_attn)


def xt_19():
    peer_output = xt(q, k, v, causal=True, custom_attn_fn=lambda scores: torch.relu(scores) ** 2)
    squared = attend(q, k, v, mask=masks.causal(S - T), normalize=lambda z, where: jax.nn.relu(z) ** 2)
    check_close(squared, peer_output)
    check_close(attend(q, k, v, mask=masks.causal(S - T), normalize=normalizers.relu(2, mean=False)), peer_output)


def xt_20():
    def top_2(z, where):
        threshold = jax.lax.top_k(jnp.where(where, z, -jnp.inf), 2)[0][..., -1:]
        return normalizers.softmax()(z, where & (z >= threshold))

    for causal in (False, True):
        mask = masks.causal(S - T) if causal else None
        check_close(attend(q, k, v, mask=mask, normalize=top_2), xt(q, k, v, causal=causal, sparse_topk=2))


def xt_21():
    def signed(z, where):
        return jnp.sign(z) * normalizers.softmax()(jnp.abs(z), where)

    check_close(attend(q, k, v, normalize=signed), xt(q, k, v, cog_signed=True))


def xt_22():
    x = normal(B, S, N * H)
    peer = DataDependentAlibi(dim=N * H, heads=N)
    decay = jnp.cumsum(jnp.asarray(peer.to_forget_gates(torch.tensor(x)).detach().numpy()), -1)
    b, h = jnp.arange(B)[:, None, None, None], jnp.arange(N)[:, None, None]
    jax_output = attend(
        k, k, v, mods=(lambda z, q_pos, k_pos: z + decay[b, h, q_pos] - decay[b, h, k_pos],), mask=masks.causal()
    )
    check_close(jax_output, xt(k, k, v, causal=True, attn_bias=peer(torch.tensor(x)).detach()))
