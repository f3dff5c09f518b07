"""Passages with questions as rows of words, and the accuracy of answers without reading."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from experiments import corpora
from experiments.corpora.passage_words import KINDS
from jax_attention import data

START = "<s>"


def source_text(passage: corpora.Passage) -> str:
    """Source of the model: the passage, then the question."""
    return f"{passage.text} {passage.question}"


def word_tokenizer(passages: list[corpora.Passage]) -> data.Words:
    """Tokenizer of the words of passages and questions, and `START`."""
    return data.Words((START, *data.Words.train(source_text(passage) for passage in passages).vocabulary))


def make_rows(passages: list[corpora.Passage], words: data.Words) -> dict[str, np.ndarray]:
    """Arrays for `training.seq2seq_loss` with one decoder step, whose target is the answer."""
    tokens, positions = data.pad_rows(words.encode_many(source_text(passage) for passage in passages))
    answers = words.encode(" ".join(passage.answer for passage in passages))
    return {
        "source": tokens,
        "source_positions": positions,
        "tokens": np.full((len(passages), 1), words.vocabulary.index(START), np.int32),
        "targets": answers[:, None],
        "weights": np.ones((len(passages), 1), np.float32),
    }


class Chance(NamedTuple):
    """Share of right answers of two answers without reading.

    commonest: always the commonest answer of training.
    guessed: a random one of the passage's values of the right kind, in expectation.
    """

    commonest: float
    guessed: float


def chance(training: list[corpora.Passage], passages: list[corpora.Passage]) -> Chance:
    """Measure both on passages; `training` decides the commonest answer."""
    ((commonest, _),) = Counter(passage.answer for passage in training).most_common(1)
    return Chance(
        float(np.mean([passage.answer == commonest for passage in passages])),
        float(np.mean([1 / count_choices(passage) for passage in passages])),
    )


def count_choices(passage: corpora.Passage) -> int:
    """Number of values in the passage of the kind that the question is about: the number of people."""
    kind = next(kind for kind in KINDS if passage.answer in kind.values)
    return sum(word in kind.values for word in passage.text.split(" "))
