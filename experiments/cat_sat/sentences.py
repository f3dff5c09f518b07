"""Sentences of a small English in which animal and place together decide the verb: "the cat sat on the mat"."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from jax_attention import data

ANIMALS = {
    "furry": ("cat", "dog", "fox", "rabbit", "mouse"),
    "bird": ("hen", "duck", "crow", "owl", "goose"),
    "small": ("ant", "beetle", "spider", "snail", "worm"),
    "farm": ("horse", "cow", "goat", "sheep", "donkey"),
}
PLACES = {
    "soft": ("mat", "rug", "bed", "sofa", "cushion"),
    "land": ("hill", "road", "field", "path", "meadow"),
    "high": ("roof", "wall", "gate", "tower", "shelf"),
    "wet": ("pond", "river", "lake", "pool", "stream"),
}
VERBS = (
    ("sat", "ran", "climbed", "drank"),
    ("dozed", "hopped", "perched", "swam"),
    ("crept", "marched", "hung", "drowned"),
    ("lay", "grazed", "leaned", "waded"),
)
"""One verb for each kind of animal (row) at each kind of place (column)."""
PREPOSITIONS = ("on", "by", "near", "behind")
"""Every preposition occurs with every pair of nouns, so it says nothing about the verb."""
MASK = "[mask]"
VERB = 2
"""Position of the verb in a sentence; the animal is at 1, the place at 5."""
SENTENCE = ("the", "cat", "sat", "on", "the", "mat")
HELD_OUT_EVERY = 7
"""Every seventh pair of animal and place is held out; the first of them is the cat on the mat."""


def _flat(kinds: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(kinds.values()))


WORDS = ("the", MASK, *PREPOSITIONS, *_flat(ANIMALS), *itertools.chain.from_iterable(VERBS), *_flat(PLACES))
VERB_IDS = np.array([WORDS.index(verb) for row in VERBS for verb in row])


def sentences(held_out: bool) -> np.ndarray:
    """All training sentences, or all held-out ones, as ids `[sentences, 6]`.

    Every noun occurs in both; only the pairs of nouns are new.
    """
    rows = []
    for (i, animal), (j, place) in itertools.product(enumerate(_flat(ANIMALS)), enumerate(_flat(PLACES))):
        if ((i + j) % HELD_OUT_EVERY == 0) == held_out:
            verb = VERBS[i // 5][j // 5]
            rows += [("the", animal, verb, preposition, "the", place) for preposition in PREPOSITIONS]
    return np.array([ids(row) for row in rows])


def ids(words: tuple[str, ...]) -> list[int]:
    """Ids of the words."""
    return [WORDS.index(word) for word in words]


def mask_verb(rows: np.ndarray) -> np.ndarray:
    """Replace the verbs of the sentences by `[mask]`."""
    masked = rows.copy()
    masked[..., VERB] = WORDS.index(MASK)
    return masked


class ClozeBatches:
    """Batches in which one word of each sentence is to be guessed.

    The word is replaced by `[mask]` (6 of 10) or a random word (2 of 10), or left as it is (2 of 10). With `[mask]`
    alone, the model would learn where to look only for `[mask]` and not for words.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def batch(self, seed: int, step: int, batch_size: int) -> Any:
        """Tokens, targets, and loss weights that are 1 at the word to guess of each sentence."""
        rng = np.random.default_rng((seed, step))
        targets = self.rows[rng.integers(len(self.rows), size=batch_size)]
        is_target = np.arange(targets.shape[1]) == rng.integers(targets.shape[1], size=(batch_size, 1))
        replacement = np.where(
            rng.random((batch_size, 1)) < 0.75, WORDS.index(MASK), rng.integers(len(WORDS), size=(batch_size, 1))
        )
        replaced = is_target & (rng.random((batch_size, 1)) < 0.8)
        return data.Batch(np.where(replaced, replacement, targets), targets, is_target.astype(np.float32))
