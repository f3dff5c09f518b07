"""A small English in which an animal and a place together decide what was done: "the cat sat on the mat"."""

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
"""One for each kind of animal (row) on each kind of place (column)."""
PREPOSITIONS = ("on", "by", "near", "behind")
"""Drawn without looking at the rest: they say nothing about the verb."""
MASK = "[mask]"
VERB = 2
"""The place of the verb in a sentence; 1 is the animal's, 5 the place's."""
SENTENCE = ("the", "cat", "sat", "on", "the", "mat")
HELD_OUT_OF = 7
"""One of so many pairs of animal and place never occurs in training: the cat on the mat is the first of them."""


def _flat(kinds: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(itertools.chain.from_iterable(kinds.values()))


WORDS = ("the", MASK, *PREPOSITIONS, *_flat(ANIMALS), *itertools.chain.from_iterable(VERBS), *_flat(PLACES))
VERB_IDS = np.array([WORDS.index(verb) for row in VERBS for verb in row])


def sentences(held_out: bool) -> np.ndarray:
    """All sentences of training, or all others, as ids `[sentences, 6]`. Each noun is in both, new are the pairs."""
    rows = []
    for (i, animal), (j, place) in itertools.product(enumerate(_flat(ANIMALS)), enumerate(_flat(PLACES))):
        if ((i + j) % HELD_OUT_OF == 0) == held_out:
            verb = VERBS[i // 5][j // 5]
            rows += [("the", animal, verb, preposition, "the", place) for preposition in PREPOSITIONS]
    return np.array([ids(row) for row in rows])


def ids(words: tuple[str, ...]) -> list[int]:
    """The numbers of the words."""
    return [WORDS.index(word) for word in words]


def masked(rows: np.ndarray) -> np.ndarray:
    """The same sentences with `[mask]` in place of the verb."""
    hidden = rows.copy()
    hidden[..., VERB] = WORDS.index(MASK)
    return hidden


class Cloze:
    """Batches in which one word of each sentence is asked for.

    In its place stands `[mask]` (6 of 10), any word (2 of 10) or the word itself (2 of 10): what a word looks at is
    learned for words, not for `[mask]` alone.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def batch(self, seed: int, step: int, batch_size: int) -> Any:
        """Tokens, targets, and weights that are 1 at the one word of each sentence."""
        rng = np.random.default_rng((seed, step))
        targets = self.rows[rng.integers(len(self.rows), size=batch_size)]
        asked = np.arange(targets.shape[1]) == rng.integers(targets.shape[1], size=(batch_size, 1))
        instead = np.where(
            rng.random((batch_size, 1)) < 0.75, WORDS.index(MASK), rng.integers(len(WORDS), size=(batch_size, 1))
        )
        changed = asked & (rng.random((batch_size, 1)) < 0.8)
        return data.Batch(np.where(changed, instead, targets), targets, asked.astype(np.float32))
