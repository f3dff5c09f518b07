"""Small recurrent encoder–decoders with every score; positions of a source of five tokens and one of three."""

from __future__ import annotations

import jax.numpy as jnp

from jax_attention import models, nn, scores
from jax_attention.cache import EMPTY
from tests.models import small

S, T, H, D = 5, 4, 8, 6
SCORES = {
    "none": None,
    "additive": nn.Additive,
    "general": nn.General,
    "concat": nn.Concat,
    "location": nn.Location,
    "dot": scores.dot(),
    "cosine": scores.cosine(3.0),
    "plain": lambda q, k: jnp.sin(q @ jnp.swapaxes(k, -1, -2)),
}
SOURCE, TARGET = small.tokens(2, S), small.tokens(2, T, seed=1)
RIGHT = jnp.array([[0, 1, 2, 3, 4], [0, 1, 2, EMPTY, EMPTY]])


def config(score="additive", **changes) -> models.RNNConfig:
    sizes = {"source_vocab_size": small.VOCABULARY, "vocab_size": 7, "context": 9, "width": D, "hidden_size": H}
    return models.RNNConfig(**sizes | {"score": SCORES[score]} | changes)


def seq2seq(score="additive", **changes) -> models.RNNSeq2Seq:
    return small.filled(lambda: models.create(config(score, **changes)))


def target(*shape):
    return small.tokens(*shape, seed=1) % 7
