"""The tables of features and the three lookups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_attention import attend, mods, scores

THINGS = {
    "tree": (90, (0.8, 0.0, 0.2)),
    "clock tower": (80, (0.0, 1.0, 0.0)),
    "snow": (50, (0.0, 0.0, 1.0)),
    "person": (50, (1.0, 0.0, 0.0)),
    "road": (20, (0.0, 0.9, 0.1)),
}
"""Saliency of each thing, and how much it is alive, built, weather."""
LIVING_THINGS = (1.0, 0.0, 0.0)

WORDS = ("breathable", "running", "shoe", "heel", "warm", "bag")
TITLES = {
    "breathable running shoes": (60, (1, 1, 1, 0, 0, 0)),
    "high heels": (90, (0, 0, 1, 1, 0, 0)),
    "winter boots": (120, (0, 0, 1, 0, 1, 0)),
    "leather bag": (200, (0, 0, 0, 0, 0, 1)),
}
"""Price of each title, and which of `WORDS` are true of it."""
SHOPPER = (1.0, 1.0, 1.0, -1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Config:
    """Factors that multiply the scores: the larger, the more of the weight goes to the best match."""

    picture_sharpness: float = 8.0
    shop_sharpness: float = 1.5


class Lookups(NamedTuple):
    """Weights by name, and the price that the shopper may expect."""

    without_query: dict[str, float]
    living_things: dict[str, float]
    shop: dict[str, float]
    price: float


def run(config: Config | None = None) -> Lookups:
    """Look up three times. Values are one-hot rows, one for each name, so the output is the weight of each name."""
    saliency_row, living_row, shop_row = _attend_to_tables(Config() if config is None else config)
    return Lookups(
        weights_by_name(THINGS, saliency_row),
        weights_by_name(THINGS, living_row),
        weights_by_name(TITLES, shop_row),
        float(shop_row[0, -1]),
    )


@partial(jax.jit, static_argnums=0)
def _attend_to_tables(config: Config) -> tuple[jax.Array, jax.Array, jax.Array]:
    saliency, features = numbers_and_keys(THINGS)
    prior = mods.bias(jnp.log(saliency)[None])  # under a query of zeros, softmax gives saliency / sum of saliencies
    one_hot = jnp.eye(len(THINGS))
    score = scores.scaled_dot(config.picture_sharpness)
    without_query = attend(jnp.zeros((1, 3)), features, one_hot, score=score, mods=(prior,))
    living_things = attend(jnp.array([LIVING_THINGS]), features, one_hot, score=score, mods=(prior,))
    prices, keys = numbers_and_keys(TITLES)
    values = jnp.concatenate([jnp.eye(len(TITLES)), prices[:, None]], axis=1)
    shop = attend(jnp.array([SHOPPER]), keys, values, score=scores.scaled_dot(config.shop_sharpness))
    return without_query, living_things, shop


def numbers_and_keys(table: dict[str, tuple[float, tuple[float, ...]]]) -> tuple[jax.Array, jax.Array]:
    """Numbers `[S]` and keys `[S, H]` of a table."""
    numbers, keys = zip(*table.values(), strict=True)
    return jnp.array(numbers, jnp.float32), jnp.array(keys, jnp.float32)


def weights_by_name(table: dict[str, object], row: jax.Array) -> dict[str, float]:
    """First row of the output by the names of the table; a price after the weights is left out."""
    return dict(zip(table, row[0].tolist(), strict=False))
