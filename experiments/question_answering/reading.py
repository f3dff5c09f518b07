"""Passages with questions as rows of words, and what can be answered without reading."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from experiments import corpora
from experiments.corpora.passage_words import KINDS
from jax_attention import data

START = "<s>"


def source(passage: corpora.Passage) -> str:
    """What is read: the passage, then the question."""
    return f"{passage.text} {passage.question}"


def words(passages: list[corpora.Passage]) -> data.Words:
    """The words of the passages and questions, and `START`."""
    return data.Words((START, *data.Words.train(source(passage) for passage in passages).vocabulary))


def rows(passages: list[corpora.Passage], words: data.Words) -> dict[str, np.ndarray]:
    """What `training.seq2seq_loss` reads: one step that answers, with nothing written before it."""
    tokens, positions = data.pad_rows(words.encode_many(source(passage) for passage in passages))
    answers = words.encode(" ".join(passage.answer for passage in passages))
    return {
        "source": tokens,
        "source_positions": positions,
        "tokens": np.full((len(passages), 1), words.vocabulary.index(START), np.int32),
        "targets": answers[:, None],
        "weights": np.ones((len(passages), 1), np.float32),
    }


class Chance(NamedTuple):
    """Share of right answers: always the commonest answer of training; any value of the passage that could be meant."""

    commonest: float
    guessed: float


def chance(training: list[corpora.Passage], passages: list[corpora.Passage]) -> Chance:
    """How often each is right, the second on average over all guesses."""
    ((commonest, _),) = Counter(passage.answer for passage in training).most_common(1)
    return Chance(
        float(np.mean([passage.answer == commonest for passage in passages])),
        float(np.mean([1 / choices(passage) for passage in passages])),
    )


def choices(passage: corpora.Passage) -> int:
    """How many values of the asked kind the passage tells: with facts that never change, how many people."""
    kind = next(kind for kind in KINDS if passage.answer in kind.values)
    return sum(word in kind.values for word in passage.text.split(" "))
