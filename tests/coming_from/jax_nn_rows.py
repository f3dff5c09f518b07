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
from tests.coming_from.operands import ALLOWED, BIAS, FEW_K, FEW_V, KK, Q, S, T, V, same

OPTIONS = ("is_causal", "scale", "local_window_size", "return_residual", "implementation")
theirs_of = jax.jit(jax.nn.dot_product_attention, static_argnames=OPTIONS)
"""Their function in one program: call by call it compiles each of its operations."""


def jaxnn_1():
    lengths = {"key_value_seq_lengths": np.array([S, 2]), "is_causal": True}
    theirs = theirs_of(Q, FEW_K, FEW_V, BIAS[None], **lengths)
    same(dot_product_attention(Q, FEW_K, FEW_V, BIAS[None], **lengths), theirs)


def jaxnn_2():
    same(attend_heads(Q, KK, V, mods=(mods.bias(BIAS),)), theirs_of(Q, KK, V, bias=BIAS[None]))


def jaxnn_3():
    same(attend_heads(Q, KK, V, mask=masks.dense(ALLOWED)), theirs_of(Q, KK, V, mask=ALLOWED))


def jaxnn_4():
    same(attend_heads(Q, KK, V, mask=masks.causal()), theirs_of(Q, KK, V, is_causal=True))


def jaxnn_5():
    same(attend_heads(Q, KK, V, score=scores.scaled_dot(0.2)), theirs_of(Q, KK, V, scale=0.2))


def jaxnn_6():
    a, b = np.array([T, 1]), np.array([2, S])
    ours = attend_heads(Q, KK, V, mask=masks.lengths(b[:, None], a[:, None]))
    same(ours, theirs_of(Q, KK, V, query_seq_lengths=a, key_value_seq_lengths=b))


def jaxnn_7():
    theirs = theirs_of(Q, KK, V, local_window_size=(1, 2))
    assert masks.from_jax_nn_window((1, 2)) == masks.sliding_window(2, 2)
    same(attend_heads(Q, KK, V, mask=masks.from_jax_nn_window((1, 2))), theirs)


def jaxnn_8():
    theirs = theirs_of(Q, KK, V, return_residual=True)[1]
    same(attend_with_stats_heads(Q, KK, V).logsumexp, theirs)


def jaxnn_9():
    theirs = theirs_of(Q, KK, V, implementation="xla")
    same(attend_heads(Q, KK, V, implementation="reference"), theirs)
    with pytest.raises(ValueError, match="no implementation 'typo'"):
        attend_heads(Q, KK, V, implementation="typo")
