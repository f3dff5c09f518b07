"""Attention as a dictionary that answers with a mixture: a picture, and a shop.

Question: what do query, key and value mean, and what does a query change?
Command:  python -m experiments.soft_lookup
Time:     3 seconds of CPU time.
Result:   "living things" takes person 0.73 and tree 0.27 (0.17 and 0.31 by saliency alone); in the shop the title that
          matches takes 0.93, "high heels" 0.01.

Every number comes from `attend`. The features were chosen by hand for this page, not learned: three of each thing in
the picture (alive, built, weather), each between 0 and 1; six words of the shop, 1 if they are true of a title. The
shopper asks for running, breathable, shoe, and says no to heels (-1). `sharpness` multiplies the products; it too is
chosen, as training would choose the length of the queries.
"""

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
"""Saliency, and how much it is alive, built, weather."""
LIVING_THINGS = (1.0, 0.0, 0.0)

WORDS = ("breathable", "running", "shoe", "heel", "warm", "bag")
TITLES = {
    "breathable running shoes": (60, (1, 1, 1, 0, 0, 0)),
    "high heels": (90, (0, 0, 1, 1, 0, 0)),
    "winter boots": (120, (0, 0, 1, 0, 1, 0)),
    "leather bag": (200, (0, 0, 0, 0, 0, 1)),
}
"""Price, and which of `WORDS` are true of it."""
SHOPPER = (1.0, 1.0, 1.0, -1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Config:
    """How decided the queries are: what their products with keys are multiplied by."""

    picture_sharpness: float = 8.0
    shop_sharpness: float = 1.5


class Lookups(NamedTuple):
    """Weights by name, and the price that the shopper may expect."""

    unasked: dict[str, float]
    living_things: dict[str, float]
    shop: dict[str, float]
    price: float


def run(config: Config | None = None) -> Lookups:
    """Look three times; values are unit vectors, one for each name, so the output says how much of each was taken."""
    unasked, asked, found = _look(Config() if config is None else config)
    return Lookups(named(THINGS, unasked), named(THINGS, asked), named(TITLES, found), float(found[0, -1]))


@partial(jax.jit, static_argnums=0)
def _look(config: Config) -> tuple[jax.Array, jax.Array, jax.Array]:
    saliency, features = columns(THINGS)
    prior = mods.bias(jnp.log(saliency)[None])  # so that a query that asks nothing takes them as salient as they are
    names = jnp.eye(len(THINGS))
    rule = scores.scaled_dot(config.picture_sharpness)
    unasked = attend(jnp.zeros((1, 3)), features, names, score=rule, mods=(prior,))
    asked = attend(jnp.array([LIVING_THINGS]), features, names, score=rule, mods=(prior,))
    prices, keys = columns(TITLES)
    values = jnp.concatenate([jnp.eye(len(TITLES)), prices[:, None]], axis=1)
    found = attend(jnp.array([SHOPPER]), keys, values, score=scores.scaled_dot(config.shop_sharpness))
    return unasked, asked, found


def columns(table: dict[str, tuple[float, tuple[float, ...]]]) -> tuple[jax.Array, jax.Array]:
    """The numbers `[S]` and the keys `[S, H]` of a table."""
    numbers, keys = zip(*table.values(), strict=True)
    return jnp.array(numbers, jnp.float32), jnp.array(keys, jnp.float32)


def named(table: dict[str, object], row: jax.Array) -> dict[str, float]:
    """The first row by the names of the table."""
    return dict(zip(table, row[0].tolist(), strict=False))
