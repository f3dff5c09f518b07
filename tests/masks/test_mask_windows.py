"""Windows of other libraries, converted, allow the same keys: transformers#39408, transformers#29176."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers.masking_utils as hf_masks

from jax_attention import masks
from tests.masks.pictures import jax_nn_picture, matrix, picture
from tests.support.tiers import slow, slow_except_every

WINDOWS = [
    # converted, T, S, keys per row
    (masks.from_huggingface_window(3), 6, 6, [1, 2, 3, 3, 3, 3]),
    (masks.from_huggingface_window(1), 4, 4, [1, 1, 1, 1]),
    (masks.from_flash_window((2, 0), 6, 6), 6, 6, [1, 2, 3, 3, 3, 3]),
    (masks.from_flash_window((2, 1), 6, 6), 6, 6, [2, 3, 4, 4, 4, 3]),
    (masks.from_flash_window((2, 1), 6, 6, causal=True), 6, 6, [1, 2, 3, 3, 3, 3]),
    (masks.from_flash_window((-1, -1), 4, 6), 4, 6, [6, 6, 6, 6]),
    (masks.from_flash_window((-1, -1), 4, 6, causal=True), 4, 6, [3, 4, 5, 6]),
    (masks.from_flash_window((1, 0), 2, 6), 2, 6, [2, 2]),
    (masks.from_flash_window((1, 0), 5, 2), 5, 2, [0, 0, 0, 1, 2]),
    (masks.from_flash_window((0, 0), 3, 3), 3, 3, [1, 1, 1]),
    (masks.from_jax_nn_window(1), 5, 5, [2, 3, 3, 3, 2]),
    (masks.from_jax_nn_window((2, 0)), 5, 5, [1, 2, 3, 3, 3]),
    (masks.from_jax_nn_window((0, 2)), 5, 5, [3, 3, 3, 2, 1]),
    (masks.sliding_window(3), 5, 5, [1, 2, 3, 3, 3]),
    (masks.sliding_window(3, 1), 5, 5, [2, 3, 4, 4, 3]),
    (masks.sliding_window(None, 1), 4, 4, [2, 3, 4, 4]),
    (masks.sliding_window(2, None), 4, 4, [4, 4, 3, 2]),
]


@pytest.mark.parametrize(("mask", "T", "S", "counts"), slow_except_every(2, [pytest.param(*x) for x in WINDOWS]))
def test_window_counts(mask, T, S, counts):
    assert matrix(picture(mask, T, S)).sum(-1).tolist() == counts


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (2, 0), (1, 2), (0, -1)])
@pytest.mark.parametrize(("T", "S"), [(3, 8), *slow(*(pytest.param(*size) for size in [(1, 8), (8, 8), (8, 3)]))])
def test_flash_window_from_its_rule(T, S, window, causal):
    """Flash-Attention's documented rule: query t sees keys [t + S - T - left, t + S - T + right], ends included."""
    left, right = window
    right = 0 if causal else right
    expected = [
        [(left < 0 or s >= t + S - T - left) and (right < 0 or s <= t + S - T + right) for s in range(S)]
        for t in range(T)
    ]
    np.testing.assert_array_equal(
        matrix(picture(masks.from_flash_window(window, T, S, causal=causal), T, S)), np.array(expected)
    )


@pytest.mark.parametrize("window", [1, (2, 0), (0, 1), (3, 2)])
@pytest.mark.parametrize(("T", "S"), [(3, 8), (8, 8)])
def test_jax_nn_window(T, S, window):
    """jax.nn aligns at the start, also when T != S (jax#32300)."""
    ours = matrix(picture(masks.from_jax_nn_window(window), T, S))
    np.testing.assert_array_equal(ours, jax_nn_picture(T, S, local_window_size=window))


@pytest.mark.parametrize("window", [1, 3, 20])
def test_huggingface_window(window):
    rule = hf_masks.sliding_window_causal_mask_function(window)
    theirs = hf_masks.sdpa_mask(1, 8, 8, mask_function=rule, allow_is_causal_skip=False)[0, 0].numpy()
    np.testing.assert_array_equal(matrix(picture(masks.from_huggingface_window(window), 8, 8)), theirs)


@pytest.mark.parametrize("width", [1, 3])
def test_torch_band(width):
    """PyTorch has no window: people write a band of `tril` and `triu`; it is `sliding_window(width)`."""
    band = torch.ones(6, 6, dtype=torch.bool).tril().triu(-(width - 1)).numpy()
    np.testing.assert_array_equal(matrix(picture(masks.sliding_window(width), 6, 6)), band)
    np.testing.assert_array_equal(matrix(picture(masks.from_torch_sdpa(band).mask, 6, 6)), band)
