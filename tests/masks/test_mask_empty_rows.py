"""Queries without any allowed key, as found by `fully_masked_rows`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import masks


@pytest.mark.parametrize(
    ("mask", "sizes", "expected"),
    [
        (masks.causal(-5), (8, 3), [True] * 5 + [False] * 3),
        (masks.causal(), (8, 3), [False] * 8),
        (masks.lengths(0), (2, 3), [True, True]),
        (masks.lengths(2, 1), (3, 3), [False, True, True]),
        (masks.dense(np.array([[True, False], [False, False]])), (2, 2), [False, True]),
        (lambda q, k: k > q, (3, 3), [False, False, True]),
        (~masks.causal(), (3, 3), [False, False, True]),
        (masks.causal(), (2, 0), [True, True]),
        (masks.prefix(np.array([0, 1])), (2, 2), [[True, True], [False, False]]),
    ],
)
def test_fully_masked_rows(mask, sizes, expected):
    np.testing.assert_array_equal(masks.fully_masked_rows(mask, *sizes), expected)


def test_fully_masked_rows_sees_positions():
    late = masks.fully_masked_rows(masks.causal(), 2, 3, key_positions=np.array([1, 2, 3]))
    np.testing.assert_array_equal(late, [True, False])
    chunk = masks.fully_masked_rows(masks.chunked(4), 2, 4, query_positions=jnp.array([3, 4]))
    np.testing.assert_array_equal(chunk, [False, True])
