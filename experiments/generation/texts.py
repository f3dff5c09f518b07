"""Passages with their questions and answers as texts, and texts as rows of words."""

from __future__ import annotations

import numpy as np

from experiments import corpora
from jax_attention import data

START, STOP = "<s>", "</s>"
MOST = 60
"""So many words are written at most, more than any text has."""


def told(people: tuple[int, int], seed: int, count: int, combinations: str = "training") -> list[str]:
    """Passages that tell one kind of fact, each with its question, its answer and `STOP`."""
    passages = corpora.passages(seed, count, people=people, kinds=1, combinations=combinations)
    return [f"{passage.text} {passage.question} {passage.answer} {STOP}" for passage in passages]


def words(texts: list[str]) -> data.Words:
    """The words of the texts, and `START`."""
    return data.Words((START, *data.Words.train(texts).vocabulary))


def encoded(texts: list[str], words: data.Words) -> list[np.ndarray]:
    """Ids, from `START` to `STOP`."""
    return [words.encode(f"{START} {text}") for text in texts]


def size(texts: list[str]) -> int:
    """Bytes of what is predicted: words with a space between them, and a line's end in place of `STOP`."""
    return sum(len(text.removesuffix(f" {STOP}").encode()) + 1 for text in texts)
