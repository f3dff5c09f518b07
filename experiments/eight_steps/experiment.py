"""The eight steps, from inputs to outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention import attend, attention_weights, scores

Rows = tuple[tuple[int, ...], ...]
SCORES = {"unscaled": scores.dot(), "scaled by 1/sqrt(3)": scores.scaled_dot()}


@dataclass(frozen=True)
class Config:
    """Three words of four features, and three matrices `[4, 3]`, which a real model learns; here they are constants."""

    inputs: Rows = ((1, 0, 1, 0), (0, 2, 0, 2), (1, 1, 1, 1))
    key: Rows = ((0, 0, 1), (1, 1, 0), (0, 1, 0), (1, 1, 0))
    query: Rows = ((1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 1, 1))
    value: Rows = ((0, 2, 0), (0, 3, 0), (1, 0, 3), (1, 1, 0))


class AttentionSteps(NamedTuple):
    """Steps 5 to 8 under one score: weights `[T, S]`, weighted values `[T, S, E]`, output `[T, E]`."""

    weights: jax.Array
    weighted_values: jax.Array
    output: jax.Array


class Steps(NamedTuple):
    """All numbers of the eight steps; `mixed` has one entry for each score of `SCORES`."""

    inputs: jax.Array
    key: jax.Array
    query: jax.Array
    value: jax.Array
    raw_scores: jax.Array
    mixed: dict[str, AttentionSteps]


@partial(jax.jit, static_argnums=0)
def _attend(name: str, query: jax.Array, key: jax.Array, value: jax.Array) -> AttentionSteps:
    rule = {
        "score": SCORES[name],
        "precision": "highest",
    }  # whole numbers stay whole on hardware with fast, rough products
    weights = attention_weights(query, key, value, **rule)
    return AttentionSteps(weights, weights[:, :, None] * value[None, :, :], attend(query, key, value, **rule))


def run(config: Config | None = None) -> Steps:
    """Compute every step."""
    config = Config() if config is None else config
    x, w_key, w_query, w_value = (
        jnp.asarray(rows, jnp.float32) for rows in (config.inputs, config.key, config.query, config.value)
    )
    key, query, value = x @ w_key, x @ w_query, x @ w_value
    mixed = {name: _attend(name, query, key, value) for name in SCORES}
    return Steps(x, key, query, value, scores.dot()(query, key), mixed)
