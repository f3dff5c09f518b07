"""Encoder-decoder models and scores by the name of an attention rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from experiments.seq2seq_models import Sizes, rule_fields, seq2seq_model
from jax_attention import nn


def model_with_rule(name: str, words: int, longest: int, width: int) -> Callable[[jax.Array], Any]:
    """Function that creates an encoder-decoder with the rule of this name from a random key.

    Args:
        name: one of `seq2seq_models.RULES`.
        words: number of different tokens; the target has two more, start and stop.
        longest: largest number of tokens of a source; "location" has parameters for each of them.
        width: features of words and states.
    """
    return seq2seq_model(name, words, words + 2, Sizes(width), longest)


def score_or_module(name: str, query_size: int, key_size: int, hidden_size: int, rngs: nnx.Rngs) -> Any:
    """Score of the rule for a layer: a score module if the rule has parameters, else a score; not for "location"."""
    rule = rule_fields(query_size)[name]
    if rule["score"] is nn.Additive:
        vector = rule.get("attention_vector", True)
        return nn.Additive(query_size, key_size, hidden_size, use_vector=vector, rngs=rngs)
    return rule["score"](query_size, key_size, rngs=rngs) if isinstance(rule["score"], type) else rule["score"]


def score_of(name: str, size: int, length: int) -> Any:
    """Score for `attend` between rows of `size` features; "location" has parameters for `length` keys."""
    rngs = nnx.Rngs(0)
    if name == "location":
        score = nn.Location(size, size, length, rngs=rngs)
    else:
        score = score_or_module(name, size, size, size, rngs)
    return score.as_score() if isinstance(score, nnx.Module) else score
