"""The picture of a mask in a notebook has the cells of the mask, at sampled positions if it is large."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import cache, masks
from jax_attention.masks.picture import draw_mask

IDS = np.array([0] * 5 + [1] * 3)


def cells(text: str) -> np.ndarray:
    """The filled cells of the SVG picture, which has one rectangle for each run of them."""
    columns, rows = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', text).groups())
    found = np.zeros((rows, columns), bool)
    for x, y, width, back in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", text):
        assert width == back
        found[int(y), int(x) : int(x) + int(width)] = True
    return found


def grid(rows: int, columns: int, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(0, rows, step)[:, None], np.arange(0, columns, step)[None, :]


def check(mask, expected: np.ndarray, note: str) -> None:
    text = draw_mask(mask)
    np.testing.assert_array_equal(cells(text), np.broadcast_to(expected, np.shape(expected)))
    assert f"<small>{note}; filled: may attend</small>" in text


def test_small_masks_are_drawn_at_every_position():
    q, k = grid(16, 16)
    check(masks.causal(), k <= q, "16 queries (down) x 16 keys")
    check(~masks.causal() | masks.dilated(3), (k > q) | ((q - k) % 3 == 0), "16 queries (down) x 16 keys")
    check(cache.filled(), np.ones((16, 16), bool), "16 queries (down) x 16 keys")  # 2^30 is no length
    check(masks.as_mask(lambda q, k: q != k), q != k, "16 queries (down) x 16 keys")
    check(masks.lengths(jnp.array([3, 5])), (k < 3) & (q == q), "16 queries (down) x 16 keys")
    q, k = grid(40, 40)
    check(masks.sliding_window(20), (k <= q) & (k > q - 20), "40 queries (down) x 40 keys")


def test_windows_longer_than_the_picture_are_sampled():
    q, k = grid(1024, 1024, 22)
    check(masks.sliding_window(512), (k <= q) & (k > q - 512), "1024 queries (down) x 1024 keys, one position in 22")


def test_arrays_by_row_give_the_lengths():
    same = IDS[:, None] == IDS[None]
    check(masks.segments(jnp.asarray(IDS)), same, "8 queries (down) x 8 keys")
    check(masks.segments(np.stack([IDS, 0 * IDS])) & masks.causal(), np.tril(same), "8 queries (down) x 8 keys")
    dense = np.random.default_rng(0).uniform(size=(2, 3, 100, 120)) > 0.5
    check(masks.dense(dense), dense[0, 0, ::3, ::3], "100 queries (down) x 120 keys, one position in 3")
    check(masks.dense(dense[0, 0, :1, :5]), dense[0, 0, :1, :5].repeat(5, 0), "5 queries (down) x 5 keys")


def test_a_picture_of_long_sequences_is_small_and_makes_no_large_array():
    ids = np.arange(200_000) // 1000  # all pairs would be 40 GB
    text = draw_mask(masks.segments(ids))
    assert len(text) < 8000
    assert cells(text).shape == (48, 48)


@pytest.mark.parametrize("table", [np.eye(4, dtype=bool)])
def test_a_mask_that_cannot_be_evaluated_has_no_picture(table):
    assert draw_mask(masks.as_mask(lambda q, k: table[q, k])) is None  # it knows 4 positions
    jax.jit(lambda ids: np.testing.assert_equal(draw_mask(masks.segments(ids)), None))(jnp.asarray(IDS))
