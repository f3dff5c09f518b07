"""The rules that are compared: those of `pair_models`, and variants that a value or a change of one part makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from experiments.pair_models import RULES
from jax_attention import models, nn, scores

PLAIN_SUM = "additive, plain sum"
VALUES: dict[str, Any] = RULES | {"scaled dot": scores.scaled_dot(), "cosine, scale 10": scores.cosine(10.0)}
NAMES = (
    "no attention",
    "dot",
    "scaled dot",
    "cosine",
    "cosine, scale 10",
    "general",
    "additive",
    PLAIN_SUM,
    "concat",
    "location",
)
"""In the order of tables and figures."""


def reader(name: str, words: int, longest: int, width: int) -> Callable[[jax.Array], models.RNNSeq2Seq]:
    """What makes an encoder and decoder with the rule of this name from a random key.

    Args:
        name: one of `NAMES`.
        words: of source and target; the target has two more, its start and its stop.
        longest: the most tokens of a source, which "location" has parameters for.
        width: of words and states.
    """
    base = "additive" if name == PLAIN_SUM else name
    config = models.RNNConfig(
        source_vocab_size=words,
        vocab_size=words + 2,
        context=longest,
        width=width,
        hidden_size=width,
        score=VALUES[base],
    )

    def create(rng: jax.Array) -> models.RNNSeq2Seq:
        model = models.create(config, rng)
        if name == PLAIN_SUM:
            model.decoder.score.vector = None
        return model

    return create


def score_of(name: str, size: int, length: int) -> Any:
    """The score itself between rows of `size` features, for `attend`, `length` of them for "location"."""
    options = {"rngs": nnx.Rngs(0)}
    if name in ("additive", PLAIN_SUM):
        return nn.Additive(size, size, size, use_vector=name != PLAIN_SUM, **options).as_score()
    if name == "location":
        return nn.Location(size, size, length, **options).as_score()
    rule = VALUES[name]
    return rule(size, size, **options).as_score() if isinstance(rule, type) else rule
