"""What is lost when patches are hidden: those a word looks at most, those it looks at least, or any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.digits.descriptions import KINDS, Described, of_kind
from experiments.digits.model import PATCHES, Describer, told
from jax_attention.cache import EMPTY

ORDERS = ("most", "any", "least")
"""Which patches go first: by the weights of the word in question in this image, or in random order."""
WAYS = ("out of sight", "white paper")
"""At position `EMPTY` no word sees a patch, though other patches may; pixels of 0 are a picture of empty paper."""
BLANK = 1 / 16
"""A patch with no more than this in its four pixels together is empty."""


def hidden(model: Describer, given: Described, maps: np.ndarray, counts: Sequence[int]) -> dict[str, np.ndarray]:
    """The share of right words `[orders, counts, kinds]` by way; as "empty" that of empty patches among the hidden."""
    shape = (len(ORDERS), len(counts), len(KINDS))
    found = {name: np.zeros(shape) for name in (*WAYS, "empty")}
    blank = np.asarray(model.encoder.patches(given.images)).sum(-1) <= BLANK
    for i, order in enumerate(ORDERS):
        for kind in range(len(KINDS)):
            first = ranked(maps[:, kind], order)
            for j, count in enumerate(counts):
                gone = np.zeros(blank.shape, bool)
                np.put_along_axis(gone, first[:, :count], True, axis=1)
                for way in WAYS:
                    found[way][i, j, kind] = right(model, given, gone, way)[kind]
                found["empty"][i, j, kind] = blank[gone].mean()
    return found


def ranked(maps: np.ndarray, order: str) -> np.ndarray:
    """The patches of each image, those to be hidden first in front, from weights `[N, patches]`."""
    if order == "any":
        return np.random.default_rng(0).random(maps.shape).argsort(1)
    return (maps if order == "least" else -maps).argsort(1)


def right(model: Describer, given: Described, gone: np.ndarray, way: str) -> np.ndarray:
    """The share of right words of each kind without the patches `gone [N, patches]`."""
    images, places = given.images, np.broadcast_to(np.arange(PATCHES), gone.shape)
    if way == "out of sight":
        places = np.where(gone, EMPTY, places)
    else:
        rows, columns = model.encoder.grid
        high, wide = model.encoder.patch
        gone = gone.reshape(-1, rows, columns).repeat(high, axis=1).repeat(wide, axis=2)
        images = np.where(gone[..., None], 0, images).astype(np.float32)
    return shares(told(model, images, given.words, places).words, given.words)


def shares(guessed: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The share of right words of each kind, from guesses `[N, 6]` and descriptions `[N, 7]`."""
    return np.array([np.mean(guessed[:, i] == true) for i, true in enumerate(of_kind(words).values())])
