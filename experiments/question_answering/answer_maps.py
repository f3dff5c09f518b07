"""Attention weights of the step that answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import corpora
from experiments.question_answering.texts import make_rows
from jax_attention import data, models


class AnswerMaps(NamedTuple):
    """Weights of the step that answers, `[passages, S]`, and three measures of them for each passage.

    largest_at_answer: whether the largest weight is on the answer.
    at_answer: weight on the answer.
    in_sentence: weight on the sentence with the answer.
    """

    weights: np.ndarray
    largest_at_answer: np.ndarray
    at_answer: np.ndarray
    in_sentence: np.ndarray


def answer_maps(model: Any, passages: list[corpora.Passage], words: data.Words) -> AnswerMaps:
    """Weights over passage and question, and their measures."""
    rows = make_rows(passages, words)
    weights = np.asarray(_cross_weights(model, rows["source"], rows["source_positions"], rows["tokens"]))
    answers = np.array([passage.place for passage in passages])
    sentences = [answer_sentence(passage) for passage in passages]
    return AnswerMaps(
        weights,
        weights.argmax(-1) == answers,
        weights[np.arange(len(answers)), answers],
        np.array([row[sentence].sum() for row, sentence in zip(weights, sentences, strict=True)]),
    )


@jax.jit
def _cross_weights(model: Any, source: jax.Array, positions: jax.Array, tokens: jax.Array) -> jax.Array:
    out = model(source, tokens, source_positions=positions, capture=models.Capture(cross="all"))
    return out.captured.cross[0][:, 0, -1]


def answer_sentence(passage: corpora.Passage) -> slice:
    """Positions of the sentence with the answer, including its full stop."""
    words = passage.text.split(" ")
    stop = words.index(".", passage.place)
    start = max((i + 1 for i in range(passage.place) if words[i] == "."), default=0)
    return slice(start, stop + 1)
