"""Ragged prompts are padded to arrays with marked padding, and lengths are rounded up to buckets."""

from __future__ import annotations

import numpy as np
import pytest

from jax_attention import cache, decoding
from jax_attention.core.buckets import bucket
from jax_attention.decoding.prompts import as_prompts, pad_columns

RAGGED = [[5, 6, 7], [8], [9, 3]]
E = cache.EMPTY


def test_padding_left_and_right():
    left, right = (decoding.pad_prompts(RAGGED, side=side, pad=1) for side in ("left", "right"))
    np.testing.assert_array_equal(left.tokens, [[5, 6, 7], [1, 1, 8], [1, 9, 3]])
    np.testing.assert_array_equal(left.positions, [[0, 1, 2], [E, E, 0], [E, 0, 1]])
    np.testing.assert_array_equal(right.tokens, [[5, 6, 7], [8, 1, 1], [9, 3, 1]])
    np.testing.assert_array_equal(right.positions, [[0, 1, 2], [0, E, E], [0, 1, E]])
    for padded in (left, right):
        np.testing.assert_array_equal(padded.lengths, [3, 1, 2])
        assert {x.dtype for x in padded} == {np.dtype(np.int32)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_more_columns_are_padding(side):
    padded = decoding.pad_prompts(RAGGED, side=side)
    longer = pad_columns(padded, 16)
    assert longer.tokens.shape == longer.positions.shape == (3, 16)
    for x, y in zip(padded[:2], longer[:2], strict=True):
        np.testing.assert_array_equal(x, y[:, :3])
    assert (longer.positions[:, 3:] == E).all()
    np.testing.assert_array_equal(longer.lengths, padded.lengths)


def test_forms_of_one_prompt_and_of_batches():
    for prompt, shape in (
        ([1, 2], (2,)),
        (np.array([1, 2]), (2,)),
        ([[1, 2], [3]], (2, 2)),
        (np.ones((3, 1, 4), int), (3, 1, 4)),
    ):
        prompts = as_prompts(prompt)
        assert prompts.tokens.shape == prompts.positions.shape == shape
        assert prompts.lengths.shape == shape[:-1]
    assert as_prompts(prompts) is prompts


def test_buckets():
    assert [bucket(n) for n in (1, 16, 17, 64, 65, 128, 129, 256, 257)] == [16, 16, 32, 64, 128, 128, 256, 256, 384]
    assert len({bucket(n) for n in range(1, 1025)}) == 11
    assert all(n <= bucket(n) < max(17, 2 * n) for n in range(1, 2000))


WRONG = {
    "no prompt": (lambda: decoding.pad_prompts([]), ValueError, r"at least one prompt, got none"),
    "an empty prompt": (lambda: decoding.pad_prompts([[1], []]), ValueError, r"prompts\[1\]: .* got an empty prompt"),
    "a side": (lambda: decoding.pad_prompts([[1]], side="top"), ValueError, r'side: expected "left" or "right"'),
    "text": (lambda: decoding.pad_prompts(["abc"]), TypeError, r"prompts\[0\]: .*tokenizer\.encode\(text\)"),
    "floats": (lambda: decoding.pad_prompts([[0.5]]), TypeError, r"expected a sequence of token ids"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
