"""Where the words of a translation look, against the words that they really translate."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.translation.sentences import Corpus
from jax_attention import data, models


def maps_of(model: Any, corpus: Corpus, pairs: list[data.Pair]) -> np.ndarray:
    """Weights `[layers, pairs, T, S]`, means over heads, as the model reads the right translations."""
    source, places = data.pad_rows(corpus.source.encode_many(pair.source for pair in pairs))
    written = corpus.target.encode_many(pair.target for pair in pairs)
    tokens, _ = data.pad_rows([np.append(corpus.start, row) for row in written])
    cross = _captured(model, source, places, tokens)
    return np.stack([np.asarray(layer).mean(axis=1) for layer in cross.values()])


@jax.jit
def _captured(model: Any, source: Any, places: Any, tokens: Any) -> dict[int, jax.Array]:
    wanted = models.Capture(cross="all")
    return model(source, tokens, source_positions=places, capture=wanted).captured.cross


def word_maps(model: Any, corpus: Corpus) -> list[np.ndarray]:
    """Of each shown sentence, `[layers, target words, source words]`."""
    maps = maps_of(model, corpus, list(corpus.shown)).swapaxes(0, 1)
    sizes = [(len(pair.target.split()), len(pair.source.split())) for pair in corpus.shown]
    return [each[:, :t, :s] for each, (t, s) in zip(maps, sizes, strict=True)]


def agreement(model: Any, corpus: Corpus) -> np.ndarray:
    """How often the largest weight of a word is that of the word it translates, `[layers, lengths]`.

    Counted are the target words that translate one; particles and classifiers translate none.
    """
    every = [pair for pairs in corpus.tests.values() for pair in pairs]
    looks = maps_of(model, corpus, every).argmax(axis=-1)
    shares = []
    first = 0
    for pairs in corpus.tests.values():
        right = [
            looks[:, first + i, t] == s for i, pair in enumerate(pairs) for t, s in enumerate(pair.alignment) if s >= 0
        ]
        shares.append(np.mean(right, axis=0))
        first += len(pairs)
    return np.stack(shares, axis=1)
