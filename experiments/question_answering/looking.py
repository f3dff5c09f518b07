"""Where the answering step of a recurrent model looks."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import corpora
from experiments.question_answering import reading
from jax_attention import data, models


class Looked(NamedTuple):
    """The map `[passages, S]` of the step that answers, and for each passage whether its largest weight is at the
    answer, how much of the weight is at the answer, and in the answer's sentence.
    """

    map: np.ndarray
    most: np.ndarray
    at_answer: np.ndarray
    in_sentence: np.ndarray


@jax.jit
def _map(model: Any, source: jax.Array, positions: jax.Array, tokens: jax.Array) -> jax.Array:
    out = model(source, tokens, source_positions=positions, capture=models.Capture(cross="all"))
    return out.captured.cross[0][:, 0, -1]


def looked(model: Any, passages: list[corpora.Passage], words: data.Words) -> Looked:
    """The weights over passage and question."""
    asked = reading.rows(passages, words)
    weights = np.asarray(_map(model, asked["source"], asked["source_positions"], asked["tokens"]))
    places = np.array([passage.place for passage in passages])
    sentences = [sentence(passage) for passage in passages]
    return Looked(
        weights,
        weights.argmax(-1) == places,
        weights[np.arange(len(places)), places],
        np.array([row[some].sum() for row, some in zip(weights, sentences, strict=True)]),
    )


def sentence(passage: corpora.Passage) -> slice:
    """The places of the sentence in which the answer stands, its full stop included."""
    texts = passage.text.split(" ")
    stop = texts.index(".", passage.place)
    start = max((i + 1 for i in range(passage.place) if texts[i] == "."), default=0)
    return slice(start, stop + 1)
