"""Wrong calls: the message names the argument, what was expected, what was passed, and the cure."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jax_attention import viz


def ones(*shape: int) -> np.ndarray:
    return np.full(shape, 1 / shape[-1])


def with_entry(entry: float) -> np.ndarray:
    weights = ones(2, 3)
    weights[1, 2] = entry
    return weights


WRONG = {
    "rank": (
        lambda: viz.heat_map(ones(2, 3, 3)),
        ValueError,
        r"weights: expected \[T, S\], got float64\[2,3,3\].*\[0\]",
    ),
    "rank below": (lambda: viz.head_grid(ones(3, 3)), ValueError, r"\[N, T, S\] or \[L, N, T, S\].*weights\[None\]"),
    "rank of a page": (lambda: viz.html_page(ones(3), "a"), ValueError, r"\[T, S\] or \[N, T, S\] or \[L, N, T, S\]"),
    "rank of rollout": (lambda: viz.rollout(ones(3, 2, 2)), ValueError, r"weights: expected \[L, N, T, S\]"),
    "rank of entropy": (lambda: viz.entropy_map(ones(2, 2)), ValueError, r"weights: expected \[L, N, T, S\]"),
    "empty": (lambda: viz.heat_map(np.ones((0, 3))), ValueError, r"at least one query and one key.*float64\[0,3\]"),
    "NaN": (
        lambda: viz.heat_map(with_entry(np.nan)),
        ValueError,
        r"finite numbers, got nan at \[1, 2\] and 1 such of 6",
    ),
    "inf": (lambda: viz.heat_map(with_entry(np.inf)), ValueError, r"finite numbers, got inf at \[1, 2\]"),
    "scores": (lambda: viz.heat_map(with_entry(-2)), ValueError, r"no negative number, got -2 at.*attention_weights"),
    "a mask": (lambda: viz.heat_map(np.eye(2) > 0), TypeError, r"real numbers.*bool\[2,2\].*mask.astype\(float\)"),
    "complex": (lambda: viz.heat_map(np.eye(2) + 0j), TypeError, r"real numbers.*complex128"),
    "a model": (lambda: viz.heat_map(print), TypeError, r"weights: expected an array.*attention_weights\(...\)"),
    "ragged": (lambda: viz.heat_map([[1, 2], [3]]), ValueError, r"lists that are no array"),
    "traced": (lambda: jax.jit(viz.heat_map)(ones(2, 2)), TypeError, r"got a traced float32\[2,2\].*outside of jit"),
    "label count": (
        lambda: viz.heat_map(ones(2, 3), ["a"], list("xyz")),
        ValueError,
        r"query_labels: expected 2 .*got 1",
    ),
    "key count": (lambda: viz.heat_map(ones(2, 3), list("ab"), ["x"]), ValueError, r"key_labels: expected 3 .*got 1"),
    "keys left out": (lambda: viz.heat_map(ones(2, 3), list("ab")), ValueError, r"key_labels: expected 3 labels.*None"),
    "one string": (lambda: viz.heat_map(ones(2, 2), "ab"), TypeError, r"the one string 'ab'.*text.split\(\)"),
    "token ids": (lambda: viz.heat_map(ones(2, 2), ["a", 5]), TypeError, r"got int 5 at index 1.*tokenizer.decode"),
    "id array": (lambda: viz.heat_map(ones(2, 2), np.arange(2)), TypeError, r"expected strings.*index 0"),
    "no sequence": (lambda: viz.heat_map(ones(2, 2), 7), TypeError, r"query_labels: expected a sequence of 2 strings"),
    "colours": (lambda: viz.heat_map(ones(2, 2), colours="Blue"), ValueError, r"colours: expected the name.*'Blue'"),
    "title": (lambda: viz.heat_map(ones(2, 2), title=3), TypeError, r"title: expected a string or None, got 3"),
    "layers": (lambda: viz.head_grid(ones(2, 1, 2, 2), layers=(1,)), ValueError, r"layers: expected 2 numbers.*\(1,\)"),
    "layers of a page": (lambda: viz.html_page(ones(2, 2), ["a", "b"], layers="01"), ValueError, r"layers: expected 1"),
    "layers of one": (
        lambda: viz.head_grid(ones(2, 2, 2), layers=(0,)),
        ValueError,
        r"have no layers.*weights\[None\]",
    ),
    "source": (lambda: viz.alignment_map(ones(2, 3), ["a"], ["x", "y"]), ValueError, r"source: expected 3 .*got 1"),
    "target": (lambda: viz.alignment_map(ones(2, 3), list("abc"), ["x"]), ValueError, r"target: expected 2 .*got 1"),
    "no source": (lambda: viz.alignment_map(ones(1, 1), None, ["x"]), ValueError, r"source: expected words, got None"),
    "above white": (lambda: viz.alignment_map([[1.5]], ["a"], ["b"]), ValueError, r"at most 1.*got 1.5.*heat_map"),
    "cross rollout": (
        lambda: viz.rollout(ones(2, 1, 2, 3)),
        ValueError,
        r"self-attention, \[L, N, T, T\], got float64\[",
    ),
    "no tokens": (lambda: viz.html_page(ones(2, 2), None), ValueError, r"tokens: expected words, got None"),
    "token count": (lambda: viz.html_page(ones(2, 2), ["a"]), ValueError, r"tokens: expected 2 labels.*got 1"),
    "too many words": (
        lambda: viz.html_page(ones(1, 4097), ["a"], ["b"] * 4097),
        ValueError,
        r"weights: expected at most 4096 queries and keys in one page, got float64\[1,1,1,4097\]. Choose a part",
    ),
    "too many heads": (
        lambda: viz.html_page(ones(2**20, 1, 1), ["a"]),
        ValueError,
        r"weights: expected at most 16384 heads in one page, got float64\[1,1048576,1,1\]. Choose some layers",
    ),
    "key tokens": (lambda: viz.html_page(ones(2, 3), ["a", "b"]), ValueError, r"key_tokens: expected 3 labels"),
    "too large": (
        lambda: viz.html_page(np.zeros((2, 2**23 + 1), np.float32), ["a", "b"]),
        ValueError,
        r"at most 16777216 weights in one page, got float64\[1,1,2,8388609\]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_message(case):
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()
