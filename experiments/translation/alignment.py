"""Attention weights of target words, compared with the true word alignment."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.translation.corpus import Corpus
from jax_attention import data, models


def attention_maps(model: Any, corpus: Corpus, pairs: list[data.Pair]) -> np.ndarray:
    """Weights `[layers, pairs, T, S]`, means over heads, while the model reads the right translations."""
    source, positions = data.pad_rows(corpus.source.encode_many(pair.source for pair in pairs))
    targets = corpus.target.encode_many(pair.target for pair in pairs)
    tokens, _ = data.pad_rows([np.append(corpus.start, row) for row in targets])
    cross = _cross_weights(model, source, positions, tokens)
    return np.stack([np.asarray(layer).mean(axis=1) for layer in cross.values()])


@jax.jit
def _cross_weights(model: Any, source: Any, positions: Any, tokens: Any) -> dict[int, jax.Array]:
    capture = models.Capture(cross="all")
    return model(source, tokens, source_positions=positions, capture=capture).captured.cross


def word_maps(model: Any, corpus: Corpus) -> list[np.ndarray]:
    """Map of each shown sentence, `[layers, target words, source words]`."""
    maps = attention_maps(model, corpus, list(corpus.shown)).swapaxes(0, 1)
    sizes = [(len(pair.target.split()), len(pair.source.split())) for pair in corpus.shown]
    return [of_pair[:, :t, :s] for of_pair, (t, s) in zip(maps, sizes, strict=True)]


def agreement(model: Any, corpus: Corpus) -> np.ndarray:
    """Share of target words whose largest weight is on the source word that they translate, `[layers, lengths]`.

    Particles and classifiers translate no word and are not counted.
    """
    all_pairs = [pair for pairs in corpus.tests.values() for pair in pairs]
    largest = attention_maps(model, corpus, all_pairs).argmax(axis=-1)
    shares = []
    first = 0
    for pairs in corpus.tests.values():
        right = [
            largest[:, first + i, t] == s
            for i, pair in enumerate(pairs)
            for t, s in enumerate(pair.alignment)
            if s >= 0
        ]
        shares.append(np.mean(right, axis=0))
        first += len(pairs)
    return np.stack(shares, axis=1)
