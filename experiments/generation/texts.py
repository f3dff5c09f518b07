"""Passages with their questions and answers as texts, and texts as rows of words."""

from __future__ import annotations

import numpy as np

from experiments import corpora
from jax_attention import data

START, STOP = "<s>", "</s>"
MAX_WORDS = 60
"""Limit of generated words; no text of the generator is longer."""


def generate_texts(people: tuple[int, int], seed: int, count: int, combinations: str = "training") -> list[str]:
    """Passages about one kind of fact, each with its question, its answer and `STOP`."""
    passages = corpora.passages(seed, count, people=people, kinds=1, combinations=combinations)
    return [f"{passage.text} {passage.question} {passage.answer} {STOP}" for passage in passages]


def word_tokenizer(texts: list[str]) -> data.Words:
    """Tokenizer of the words of the texts and `START`."""
    return data.Words((START, *data.Words.train(texts).vocabulary))


def encode_texts(texts: list[str], words: data.Words) -> list[np.ndarray]:
    """Token ids of each text, from `START` to `STOP`."""
    return [words.encode(f"{START} {text}") for text in texts]


def count_bytes(texts: list[str]) -> int:
    """Bytes of all predicted words, with a space between two words and a newline in place of `STOP`."""
    return sum(len(text.removesuffix(f" {STOP}").encode()) + 1 for text in texts)
