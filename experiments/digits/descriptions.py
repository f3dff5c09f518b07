"""Handwritten digits of scikit-learn, each with a description in words that is computed from its pixels."""

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
"""Words of a description by kind, in their order: "thin seven right top-heavy bottom-light"."""
KINDS = tuple(VALUES)
START, STOP = 0, 1
WORDS = ("<s>", "</s>", *(word for values in VALUES.values() for word in values))
EDGE = 2
"""Number of pixel rows that count as the top and as the bottom: one row of patches."""


class Descriptions(NamedTuple):
    """Images `[N, 8, 8, 1]` from 0 to 1, and their descriptions as ids `[N, 7]`, from `<s>` to `</s>`."""

    images: np.ndarray
    words: np.ndarray


def describe_digits(held_out: float) -> tuple[Descriptions, Descriptions]:
    """Training images, and held-out images: the last part of the file.

    Limits between thin and thick, light and heavy are medians of the training images; the two limits between the slants
    divide them into thirds.
    """
    dataset = load_digits()
    images = dataset.images / 16
    known = len(images) - int(held_out * len(images))
    ink, top, bottom = (part.sum((1, 2)) for part in (images, images[:, :EDGE], images[:, -EDGE:]))
    numbers = (
        _quantile_class(ink, known, 2),
        dataset.target,
        _quantile_class(slant(images), known, 3),
        _quantile_class(top, known, 2),
        _quantile_class(bottom, known, 2),
    )
    first = [WORDS.index(values[0]) for values in VALUES.values()]
    words = np.stack(numbers, 1) + first
    ends = [np.full((len(words), 1), end) for end in (START, STOP)]
    words = np.concatenate([ends[0], words, ends[1]], axis=1)
    images = images[..., None].astype(np.float32)
    return Descriptions(images[:known], words[:known]), Descriptions(images[known:], words[known:])


def slant(images: np.ndarray) -> np.ndarray:
    """Slant of each image: shift of the ink to the right from one pixel row to the row above; 0 is vertical.

    It is the regression slope of columns on rows, weighted by the ink.
    """
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    share = images / images.sum((1, 2), keepdims=True)
    down, right = (axis - (share * axis).sum((1, 2), keepdims=True) for axis in (rows, columns))
    return -(share * down * right).sum((1, 2)) / (share * down**2).sum((1, 2))


def _quantile_class(numbers: np.ndarray, known: int, count: int) -> np.ndarray:
    """Class of each number, 0 to `count - 1`, with limits that make the classes of the first `known` equally large."""
    limits = np.quantile(numbers[:known], np.arange(1, count) / count)
    return np.digitize(numbers, limits, right=True)


def words_by_kind(words: np.ndarray) -> dict[str, Any]:
    """Word ids of each kind, `[...]`, from descriptions `[..., 7]`."""
    return {kind: words[..., i + 1] for i, kind in enumerate(KINDS)}
