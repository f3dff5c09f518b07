"""Self-attention in eight steps, with numbers small enough to check by hand.

Question: what exactly happens between three input vectors and three outputs of self-attention?
Command:  python -m experiments.eight_steps
Time:     2 seconds of CPU time.
Result:   keys, queries, values and raw scores are whole numbers; word 2 gives 0.9820 of its weight to itself, because
          its score 16 is 4 above the next; its output is [2.0000, 7.9640, 0.0540], close to its own value [2, 8, 0].
          Dividing the scores by sqrt(3) flattens the weights (0.9088 instead of 0.9820) and mixes more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention import attend, attention_weights, scores

Rows = tuple[tuple[int, ...], ...]
RULES = {"unscaled": scores.dot(), "scaled by 1/sqrt(3)": scores.scaled_dot()}


@dataclass(frozen=True)
class Config:
    """Three words of four features, and three matrices `[4, 3]`, learned in a real model, here given."""

    inputs: Rows = ((1, 0, 1, 0), (0, 2, 0, 2), (1, 1, 1, 1))
    key: Rows = ((0, 0, 1), (1, 1, 0), (0, 1, 0), (1, 1, 0))
    query: Rows = ((1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 1, 1))
    value: Rows = ((0, 2, 0), (0, 3, 0), (1, 0, 3), (1, 1, 0))


class Mixed(NamedTuple):
    """What one score rule makes of the keys, queries and values."""

    weights: jax.Array
    weighted_values: jax.Array
    output: jax.Array


class Steps(NamedTuple):
    """All numbers of the walk-through; `mixed` has one entry for each rule of `RULES`."""

    inputs: jax.Array
    key: jax.Array
    query: jax.Array
    value: jax.Array
    raw_scores: jax.Array
    mixed: dict[str, Mixed]


@partial(jax.jit, static_argnums=0)
def _mixed(name: str, query: jax.Array, key: jax.Array, value: jax.Array) -> Mixed:
    rule = {"score": RULES[name], "precision": "highest"}
    weights = attention_weights(query, key, value, **rule)
    return Mixed(weights, weights[:, :, None] * value[None, :, :], attend(query, key, value, **rule))


def run(config: Config | None = None) -> Steps:
    """Compute every step."""
    config = Config() if config is None else config
    x, w_key, w_query, w_value = (
        jnp.asarray(rows, jnp.float32) for rows in (config.inputs, config.key, config.query, config.value)
    )
    key, query, value = x @ w_key, x @ w_query, x @ w_value
    mixed = {name: _mixed(name, query, key, value) for name in RULES}
    return Steps(x, key, query, value, scores.dot()(query, key), mixed)
