"""The rules that are compared, in a model of pairs and alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from experiments.pair_models import Sizes, pair_model, rules
from jax_attention import nn


def reader(name: str, words: int, longest: int, width: int) -> Callable[[jax.Array], Any]:
    """What makes an encoder and decoder with the rule of this name from a random key.

    Args:
        name: one of `pair_models.RULES`.
        words: of source and target; the target has two more, its start and its stop.
        longest: the most tokens of a source, which "location" has parameters for.
        width: of words and states.
    """
    return pair_model(name, words, words + 2, Sizes(width), longest)


def score_of(name: str, size: int, length: int) -> Any:
    """The score itself between rows of `size` features, for `attend`, `length` of them for "location"."""
    rule, options = rules(size)[name], {"rngs": nnx.Rngs(0)}
    if rule["score"] is nn.Additive:
        return nn.Additive(size, size, size, use_vector=rule.get("attention_vector", True), **options).as_score()
    if rule["score"] is nn.Location:
        return nn.Location(size, size, length, **options).as_score()
    return rule["score"](size, size, **options).as_score() if isinstance(rule["score"], type) else rule["score"]
