"""What can be checked in a text without understanding it: could the generator have made it?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.corpora.passage_words import KINDS, NAMES, article
from experiments.generation.texts import STOP

TEXT = re.compile(rf"((?:[^.?]* \. )+)([^.?]* \?) (\S+) {STOP}")

STATED = {
    form.format(name=name, value=value, a=article(value)): (number, name, value)
    for number, kind in enumerate(KINDS)
    for form in kind.statements
    for name in NAMES
    for value in kind.values
}
"""Every sentence of the generator, and what it tells: the number of its kind, who, what."""
ASKED = {
    form.format(name=name): (number, name)
    for number, kind in enumerate(KINDS)
    for form in kind.questions
    for name in NAMES
}
"""Every question of the generator, and what it asks."""


class Judged(NamedTuple):
    """Booleans, one for each text but in `sentences` one for each sentence; each check of a text includes those before.

    sentences: the sentence is one of the generator's.
    formed: sentences, one question, one word, the end.
    possible: each sentence and the question are the generator's.
    agreeing: they are all about one kind of fact, everybody is told of once, and all values differ.
    asked: somebody is asked about of whom the text told.
    answered: the answer is what it told.
    unseen: of all texts, those that do not stand in training.
    """

    sentences: np.ndarray
    formed: np.ndarray
    possible: np.ndarray
    agreeing: np.ndarray
    asked: np.ndarray
    answered: np.ndarray
    unseen: np.ndarray
    new_pairs: np.ndarray
    """One for each possible sentence: whether training never tells this value of this person."""


CHECKS = ("formed", "possible", "agreeing", "asked", "answered")
"""Of whole texts, each with those before."""


class Known:
    """The texts of training and the pairs (person, value) that they tell."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = frozenset(texts)
        self.pairs = frozenset(STATED[sentence][1:] for text in texts for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    """The sentences that end with a full stop."""
    return [part.strip() for part in re.findall(r"[^.]*\.", text)]


def judged(texts: Sequence[str], known: Known) -> Judged:
    """All checks of all texts."""
    found = [sentence for text in texts for sentence in sentences(text)]
    stated = [STATED[sentence][1:] for sentence in found if sentence in STATED]
    passed = np.array([passes(text) for text in texts])
    return Judged(
        np.array([sentence in STATED for sentence in found]),
        *np.arange(1, len(CHECKS) + 1)[:, None] <= passed,
        np.array([text not in known.texts for text in texts]),
        np.array([pair not in known.pairs for pair in stated]),
    )


def passes(text: str) -> int:
    """How many of `CHECKS` a text passes before it fails one."""
    match = TEXT.fullmatch(text)
    if match is None:
        return 0
    stated, question = sentences(match[1]), match[2]
    if question not in ASKED or not set(stated) <= set(STATED):
        return 1
    kinds, names, values = zip(*(STATED[sentence] for sentence in stated), strict=True)
    kind, name = ASKED[question]
    if {*kinds} != {kind} or len({*names}) < len(names) or len({*values}) < len(values):
        return 2
    if name not in names:
        return 3
    return 5 if dict(zip(names, values, strict=True))[name] == match[3] else 4
