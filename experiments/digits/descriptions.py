"""Scikit-learn's handwritten digits, each with a description in words that is computed from its pixels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VALUES = {
    "ink": ("thin", "thick"),
    "digit": NAMES,
    "slant": ("left", "upright", "right"),
    "top": ("top-light", "top-heavy"),
    "bottom": ("bottom-light", "bottom-heavy"),
}
"""The words of a description in their order, by kind: "thin seven right top-heavy bottom-light"."""
KINDS = tuple(VALUES)
START, STOP = 0, 1
WORDS = ("<s>", "</s>", *(word for values in VALUES.values() for word in values))
EDGE = 2
"""How many rows of pixels the top and the bottom are: one row of patches."""


class Described(NamedTuple):
    """Images `[N, 8, 8, 1]` from 0 to 1, and their descriptions as ids `[N, 7]`, from `<s>` to `</s>`."""

    images: np.ndarray
    words: np.ndarray


def described(held_out: float) -> tuple[Described, Described]:
    """For training, and the last part of the file, which other people wrote for the most part.

    The limits between thin and thick, light and heavy are medians of training, those between slants its thirds.
    """
    found = load_digits()
    images = found.images / 16
    known = len(images) - int(held_out * len(images))
    ink, top, bottom = (part.sum((1, 2)) for part in (images, images[:, :EDGE], images[:, -EDGE:]))
    numbers = (
        _class(ink, known, 2),
        found.target,
        _class(slant(images), known, 3),
        _class(top, known, 2),
        _class(bottom, known, 2),
    )
    first = [WORDS.index(values[0]) for values in VALUES.values()]
    words = np.stack(numbers, 1) + first
    ends = [np.full((len(words), 1), end) for end in (START, STOP)]
    words = np.concatenate([ends[0], words, ends[1]], axis=1)
    images = images[..., None].astype(np.float32)
    return Described(images[:known], words[:known]), Described(images[known:], words[known:])


def slant(images: np.ndarray) -> np.ndarray:
    """How far the ink moves to the right from one row of pixels to the one above, by moments; 0 is upright."""
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    share = images / images.sum((1, 2), keepdims=True)
    down, right = (places - (share * places).sum((1, 2), keepdims=True) for places in (rows, columns))
    return -(share * down * right).sum((1, 2)) / (share * down**2).sum((1, 2))


def _class(numbers: np.ndarray, known: int, count: int) -> np.ndarray:
    """Which part of `count` equally frequent ones, judged by the first `known`."""
    limits = np.quantile(numbers[:known], np.arange(1, count) / count)
    return np.digitize(numbers, limits, right=True)


def of_kind(words: np.ndarray) -> dict[str, Any]:
    """The words of each kind, from `[..., 7]`."""
    return {kind: words[..., i + 1] for i, kind in enumerate(KINDS)}
