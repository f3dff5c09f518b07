"""Checks of a text that need no understanding: could the generator have written it?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.corpora.passage_words import KINDS, NAMES, article
from experiments.generation.texts import STOP

TEXT = re.compile(rf"((?:[^.?]* \. )+)([^.?]* \?) (\S+) {STOP}")

STATEMENTS = {
    form.format(name=name, value=value, a=article(value)): (number, name, value)
    for number, kind in enumerate(KINDS)
    for form in kind.statements
    for name in NAMES
    for value in kind.values
}
"""Every sentence of the generator, with the number of its kind of fact, the person and the value."""
QUESTIONS = {
    form.format(name=name): (number, name)
    for number, kind in enumerate(KINDS)
    for form in kind.questions
    for name in NAMES
}
"""Every question of the generator, with the number of its kind of fact and the person."""


class CheckResults(NamedTuple):
    """Outcome of each check: one boolean for each text, but for each sentence in `sentences` and `new_pairs`.

    A check of a text includes all checks of `CHECKS` before it.

    sentences: the sentence is one of the generator's.
    formed: the text is sentences, one question, one word, the end.
    possible: each sentence and the question are the generator's.
    agreeing: all are about one kind of fact, each person occurs once, and all values differ.
    relevant_question: the question is about a person of the text.
    right_answer: the answer is the value that the text gives.
    unseen: the text is not in the training set.
    new_pairs: for each possible sentence, no training text gives this value to this person.
    """

    sentences: np.ndarray
    formed: np.ndarray
    possible: np.ndarray
    agreeing: np.ndarray
    relevant_question: np.ndarray
    right_answer: np.ndarray
    unseen: np.ndarray
    new_pairs: np.ndarray


CHECKS = ("formed", "possible", "agreeing", "relevant_question", "right_answer")
"""Checks of whole texts, in their order."""


class TrainingSet:
    """The texts of training, and the pairs (person, value) in them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = frozenset(texts)
        self.pairs = frozenset(STATEMENTS[sentence][1:] for text in texts for sentence in split_sentences(text))


def split_sentences(text: str) -> list[str]:
    """Sentences of a text that end with a full stop."""
    return [part.strip() for part in re.findall(r"[^.]*\.", text)]


def check_texts(texts: Sequence[str], training_set: TrainingSet) -> CheckResults:
    """Run all checks on all texts."""
    sentences = [sentence for text in texts for sentence in split_sentences(text)]
    pairs = [STATEMENTS[sentence][1:] for sentence in sentences if sentence in STATEMENTS]
    passed = np.array([count_passed(text) for text in texts])
    return CheckResults(
        np.array([sentence in STATEMENTS for sentence in sentences]),
        *np.arange(1, len(CHECKS) + 1)[:, None] <= passed,
        np.array([text not in training_set.texts for text in texts]),
        np.array([pair not in training_set.pairs for pair in pairs]),
    )


def count_passed(text: str) -> int:
    """Number of `CHECKS` that a text passes before the first that fails."""
    match = TEXT.fullmatch(text)
    if match is None:
        return 0
    sentences, question = split_sentences(match[1]), match[2]
    if question not in QUESTIONS or not set(sentences) <= set(STATEMENTS):
        return 1
    kinds, names, values = zip(*(STATEMENTS[sentence] for sentence in sentences), strict=True)
    kind, name = QUESTIONS[question]
    if {*kinds} != {kind} or len({*names}) < len(names) or len({*values}) < len(values):
        return 2
    if name not in names:
        return 3
    return 5 if dict(zip(names, values, strict=True))[name] == match[3] else 4
