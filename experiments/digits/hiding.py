"""Accuracy with hidden patches: those with the largest weights, those with the smallest, or random ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.digits.descriptions import KINDS, Descriptions, words_by_kind
from experiments.digits.model import PATCHES, ImageDescriber, predict_words
from jax_attention.cache import EMPTY

ORDERS = ("most", "any", "least")
"""Order in which patches are hidden: by the weights of the word in this image, or random."""
WAYS = ("out of sight", "white paper")
"""Two ways to hide a patch: at position `EMPTY` no word attends to it, though other patches do; or its pixels are 0."""
EMPTY_INK = 1 / 16
"""Largest sum of the four pixels of a patch that counts as empty: one grey level of 16."""


def measure_hiding(
    model: ImageDescriber, descriptions: Descriptions, maps: np.ndarray, counts: Sequence[int]
) -> dict[str, np.ndarray]:
    """Share of right words `[orders, counts, kinds]` by way; as "empty", share of empty patches among the hidden ones.

    Args:
        model: the trained model.
        descriptions: held-out images and their words.
        maps: weights of each word in each image, `[N, 6, patches]`.
        counts: numbers of patches to hide.
    """
    shape = (len(ORDERS), len(counts), len(KINDS))
    shares = {name: np.zeros(shape) for name in (*WAYS, "empty")}
    is_empty = np.asarray(model.encoder.patches(descriptions.images)).sum(-1) <= EMPTY_INK
    for i, order in enumerate(ORDERS):
        for kind in range(len(KINDS)):
            ranking = rank_patches(maps[:, kind], order)
            for j, count in enumerate(counts):
                hidden = np.zeros(is_empty.shape, bool)
                np.put_along_axis(hidden, ranking[:, :count], True, axis=1)
                for way in WAYS:
                    shares[way][i, j, kind] = accuracy_without(model, descriptions, hidden, way)[kind]
                shares["empty"][i, j, kind] = is_empty[hidden].mean()
    return shares


def rank_patches(maps: np.ndarray, order: str) -> np.ndarray:
    """Indices of the patches of each image, first to be hidden first, from weights `[N, patches]`."""
    if order == "any":
        return np.random.default_rng(0).random(maps.shape).argsort(1)
    return (maps if order == "least" else -maps).argsort(1)


def accuracy_without(model: ImageDescriber, descriptions: Descriptions, hidden: np.ndarray, way: str) -> np.ndarray:
    """Share of right words of each kind without the patches `hidden [N, patches]`."""
    images, positions = descriptions.images, np.broadcast_to(np.arange(PATCHES), hidden.shape)
    if way == "out of sight":
        positions = np.where(hidden, EMPTY, positions)
    else:
        rows, columns = model.encoder.grid
        height, width = model.encoder.patch
        pixels = hidden.reshape(-1, rows, columns).repeat(height, axis=1).repeat(width, axis=2)
        images = np.where(pixels[..., None], 0, images).astype(np.float32)
    predicted = predict_words(model, images, descriptions.words, positions)
    return accuracy_by_kind(predicted.words, descriptions.words)


def accuracy_by_kind(predicted: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Share of right words of each kind, from predictions `[N, 6]` and descriptions `[N, 7]`."""
    return np.array([np.mean(predicted[:, i] == true) for i, true in enumerate(words_by_kind(words).values())])
