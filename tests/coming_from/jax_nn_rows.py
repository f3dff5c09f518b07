"""The rows of jax.nn.dot_product_attention."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_attention import (
    attend_heads,
    attend_with_stats_heads,
    dot_product_attention,
    masks,
    mods,
    scores,
)
from tests.coming_from.operands import ALLOWED, BIAS, FEW_K, FEW_V, KK, Q, S, T, V, check_close

OPTIONS = ("is_causal", "scale", "local_window_size", "return_residual", "implementation")
jax_nn_attention = jax.jit(jax.nn.dot_product_attention, static_argnames=OPTIONS)
"""The function of jax.nn in one program; without `jit` JAX compiles each of its operations."""


def jaxnn_1():
    lengths = {"key_value_seq_lengths": np.array([S, 2]), "is_causal": True}
    jax_nn_output = jax_nn_attention(Q, FEW_K, FEW_V, BIAS[None], **lengths)
    check_close(dot_product_attention(Q, FEW_K, FEW_V, BIAS[None], **lengths), jax_nn_output)


def jaxnn_2():
    check_close(attend_heads(Q, KK, V, mods=(mods.bias(BIAS),)), jax_nn_attention(Q, KK, V, bias=BIAS[None]))


def jaxnn_3():
    check_close(attend_heads(Q, KK, V, mask=masks.dense(ALLOWED)), jax_nn_attention(Q, KK, V, mask=ALLOWED))


def jaxnn_4():
    check_close(attend_heads(Q, KK, V, mask=masks.causal()), jax_nn_attention(Q, KK, V, is_causal=True))


def jaxnn_5():
    check_close(attend_heads(Q, KK, V, score=scores.scaled_dot(0.2)), jax_nn_attention(Q, KK, V, scale=0.2))


def jaxnn_6():
    a, b = np.array([T, 1]), np.array([2, S])
    jax_output = attend_heads(Q, KK, V, mask=masks.lengths(b[:, None], a[:, None]))
    check_close(jax_output, jax_nn_attention(Q, KK, V, query_seq_lengths=a, key_value_seq_lengths=b))


def jaxnn_7():
    jax_nn_output = jax_nn_attention(Q, KK, V, local_window_size=(1, 2))
    assert masks.from_jax_nn_window((1, 2)) == masks.sliding_window(2, 2)
    check_close(attend_heads(Q, KK, V, mask=masks.from_jax_nn_window((1, 2))), jax_nn_output)


def jaxnn_8():
    residual = jax_nn_attention(Q, KK, V, return_residual=True)[1]
    check_close(attend_with_stats_heads(Q, KK, V).logsumexp, residual)


def jaxnn_9():
    jax_nn_output = jax_nn_attention(Q, KK, V, implementation="xla")
    check_close(attend_heads(Q, KK, V, implementation="reference"), jax_nn_output)
    with pytest.raises(ValueError, match="no implementation 'typo'"):
        attend_heads(Q, KK, V, implementation="typo")
