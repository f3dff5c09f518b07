"""Causal masks of any offset against pictures by hand, PyTorch and jax.nn: flax#5591, pytorch#108108, mlx#2835,
flash-attention#517.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from jax_attention import attend, masks
from tests.masks.pictures import CLOSE, jax_nn_picture, matrix, picture
from tests.support.tiers import slow_except_every

TRIANGLE = ["#.......", "##......", "###.....", "####....", "#####...", "######..", "#######.", "########"]
ALIGNMENTS = [
    # T, S, offset, picture
    (1, 8, 0, ["#......."]),
    (1, 8, 7, ["########"]),  # the end: S - T
    (1, 8, 2, ["###....."]),
    (3, 8, 0, ["#.......", "##......", "###....."]),
    (3, 8, 5, ["######..", "#######.", "########"]),  # the end
    (3, 8, 2, ["###.....", "####....", "#####..."]),
    (8, 8, 0, TRIANGLE),  # start and end at once
    (8, 8, 2, [*TRIANGLE[2:], TRIANGLE[7], TRIANGLE[7]]),
    (8, 8, -1, ["........", *TRIANGLE[:7]]),
    (8, 3, 0, ["#..", "##.", *["###"] * 6]),
    (8, 3, -5, [*["..."] * 5, "#..", "##.", "###"]),  # the end
    (8, 3, 2, ["###"] * 8),
]


@pytest.mark.parametrize(("T", "S", "offset", "expected"), slow_except_every(2, [pytest.param(*x) for x in ALIGNMENTS]))
def test_causal_alignment(T, S, offset, expected):
    """The same picture three ways: an offset, positions of the queries, positions of the keys."""
    assert picture(masks.causal(offset), T, S) == expected
    assert picture(masks.causal(), T, S, query_positions=np.arange(T) + offset) == expected
    assert picture(masks.causal(), T, S, key_positions=np.arange(S) - offset) == expected


@pytest.mark.parametrize(("T", "S"), [(1, 8), (3, 8), (8, 8)])
def test_end_alignment_is_torch_lower_right(T, S):
    weights = scaled_dot_product_attention(
        torch.zeros(1, T, 2), torch.zeros(1, S, 2), torch.eye(S)[None], attn_mask=causal_lower_right(T, S)
    )
    np.testing.assert_array_equal(matrix(picture(masks.causal(S - T), T, S)), weights[0].numpy() > 0)


@pytest.mark.parametrize(("T", "S"), [(1, 8), (3, 8), (8, 8), (8, 3)])
def test_start_alignment_is_torch_is_causal_and_jax_nn(T, S):
    ours = matrix(picture(masks.causal(), T, S))
    weights = scaled_dot_product_attention(
        torch.zeros(1, T, 2), torch.zeros(1, S, 2), torch.eye(S)[None], is_causal=True
    )
    np.testing.assert_array_equal(ours, weights[0].numpy() > 0)
    np.testing.assert_array_equal(ours, jax_nn_picture(T, S, is_causal=True))


def test_cached_decoding_sees_all_earlier_keys():
    """flax#5591: a single query behind a cache must not fall back to position 0."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(8, 4)).astype(np.float32) for _ in range(3))
    full = attend(q, k, v, mask=masks.causal())
    for t in range(8):
        step = attend(q[t : t + 1], k, v, mask=masks.causal(), query_positions=jnp.array([t]))
        np.testing.assert_allclose(step, full[t : t + 1], **CLOSE)
