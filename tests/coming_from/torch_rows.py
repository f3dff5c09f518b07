"""The rows of PyTorch: scaled_dot_product_attention and nn.MultiheadAttention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

from jax_attention import Dropout, attend, attend_heads, attention_weights_heads, masks, mods, normalizers, scores
from tests.coming_from.operands import (
    ALLOWED,
    BIAS,
    KK,
    B,
    H,
    N,
    Q,
    S,
    T,
    V,
    check_close,
    few_k,
    few_v,
    k,
    q,
    tensors,
    v,
)


def sdpa(*arrays, attn_mask=None, **options):
    mask = attn_mask if attn_mask is None or isinstance(attn_mask, torch.Tensor) else torch.tensor(attn_mask)
    return F.scaled_dot_product_attention(*tensors(*arrays), attn_mask=mask, **options)


def torch_1():
    check_close(attend(q, k, v), sdpa(q, k, v))


def torch_2():
    check_close(attend(q, k, v, mask=masks.dense(ALLOWED)), sdpa(q, k, v, attn_mask=ALLOWED))


def torch_3():
    for attn_mask in (ALLOWED, BIAS, np.where(ALLOWED, BIAS, -np.inf).astype(np.float32)):
        check_close(attend(q, k, v, **masks.from_torch_sdpa(attn_mask)._asdict()), sdpa(q, k, v, attn_mask=attn_mask))


def torch_4():
    bias = torch.tensor(BIAS, requires_grad=True)
    (torch_gradient,) = torch.autograd.grad(sdpa(q, k, v, attn_mask=bias).sin().sum(), bias)
    check_close(jax.grad(lambda bias: jnp.sin(attend(q, k, v, mods=(mods.bias(bias),))).sum())(BIAS), torch_gradient)


def torch_5():
    check_close(attend(q, k, v, mask=masks.causal()), sdpa(q, k, v, is_causal=True))
    check_close(attend(k, q, q, mask=masks.causal()), sdpa(k, q, q, is_causal=True))


def torch_6():
    check_close(attend(q, k, v, mask=masks.causal(S - T)), sdpa(q, k, v, attn_mask=causal_lower_right(T, S)))


def torch_7():
    check_close(attend(q, k, v, score=scores.scaled_dot(0.2)), sdpa(q, k, v, scale=0.2))


def torch_8():
    jax_output = attend_heads(*(jnp.swapaxes(x, -2, -3) for x in (q, few_k, few_v)))
    check_close(jnp.swapaxes(jax_output, -2, -3), sdpa(q, few_k, few_v, enable_gqa=True))


def torch_9():
    """Both divide the kept weights by 1 - p, and drop a fraction p of the weights over many draws."""
    torch.manual_seed(0)
    p, zeros, one_hot = 0.25, np.zeros((400, T, H), np.float32), np.tile(np.eye(S, dtype=np.float32), (400, 1, 1))
    keys = np.zeros((400, S, H), np.float32)
    torch_output = sdpa(zeros, keys, one_hot, dropout_p=p).numpy()
    jax_output = np.asarray(attend(zeros, keys, one_hot, dropout=Dropout(jax.random.key(0), p)))
    for weights in (jax_output, torch_output):
        np.testing.assert_allclose(np.unique(weights), [0, 1 / S / (1 - p)], rtol=1e-6)
        deviation = np.sqrt(p * (1 - p) / weights.size)
        assert abs((weights == 0).mean() - p) < 5 * deviation


def torch_layer(**options):
    """`nn.MultiheadAttention` whose projections are identities: the model size is N * H."""
    layer = torch.nn.MultiheadAttention(N * H, N, bias=False, batch_first=True, **options)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(N * H).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(N * H))
    return layer


def run_layer(layer, **options):
    return layer(*tensors(*(x.reshape(B, -1, N * H) for x in (Q, KK, V))), **options)


def torch_10():
    attn_mask, padding = ~ALLOWED[0, 0], np.arange(S)[None] >= np.array([[S], [2]])
    options = {"attn_mask": torch.tensor(attn_mask), "key_padding_mask": torch.tensor(padding)}
    jax_output = attend_heads(Q, KK, V, **masks.from_torch_mha(attn_mask, padding)._asdict())
    check_close(jax_output.reshape(B, T, N * H), run_layer(torch_layer(), **options)[0])


def torch_11():
    jax_output = attend_heads(Q, KK, V, normalize=normalizers.softmax(plus_one=True))
    check_close(jax_output.reshape(B, T, N * H), run_layer(torch_layer(add_zero_attn=True))[0])


def torch_12():
    weights = attention_weights_heads(Q, KK, V)
    check_close(weights.mean(-3), run_layer(torch_layer(), need_weights=True)[1])
    check_close(weights, run_layer(torch_layer(), need_weights=True, average_attn_weights=False)[1])


def torch_13():
    band = torch.ones(S, S, dtype=torch.bool).tril().triu(-1)
    check_close(attend(k, k, v, mask=masks.sliding_window(2)), sdpa(k, k, v, attn_mask=band))
