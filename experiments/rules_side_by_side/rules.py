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


def part_of(name: str, query_size: int, key_size: int, hidden_size: int, rngs: nnx.Rngs) -> Any:
    """What a layer takes as its score: a module where the rule has parameters, else a value; not for "location"."""
    rule = rules(query_size)[name]
    if rule["score"] is nn.Additive:
        vector = rule.get("attention_vector", True)
        return nn.Additive(query_size, key_size, hidden_size, use_vector=vector, rngs=rngs)
    return rule["score"](query_size, key_size, rngs=rngs) if isinstance(rule["score"], type) else rule["score"]


def score_of(name: str, size: int, length: int) -> Any:
    """The score itself between rows of `size` features, for `attend`, `length` of them for "location"."""
    rngs = nnx.Rngs(0)
    part = nn.Location(size, size, length, rngs=rngs) if name == "location" else part_of(name, size, size, size, rngs)
    return part.as_score() if isinstance(part, nnx.Module) else part
