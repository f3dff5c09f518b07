"""The value behind a key, asked for at every distance, in sources as long as in training and longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.learn import Rows, Schooling, learn, parameters
from experiments.pair_models import Sizes, pair_model
from jax_attention import data

TRAINED_SEED, ASKED_SEED = 1, 2
DRAWN = 4
"""So many rows are drawn for each that is asked, in case some are known."""


@dataclass(frozen=True)
class Taught:
    """A model of `pair_models` and its training."""

    name: str
    schooling: Schooling


SEEDS = (0, 1, 2)
TAUGHT = (
    Taught("no attention", Schooling(1500, 64, 1e-2, SEEDS)),
    Taught("dot", Schooling(1500, 64, 1e-2, SEEDS)),
    Taught("Transformer", Schooling(1500, 64, 3e-3, SEEDS)),
)
LONGER_TAUGHT = (*TAUGHT[:2], Taught("Transformer", Schooling(2500, 128, 3e-3, SEEDS)))


@dataclass(frozen=True)
class RecallConfig:
    """Training: 1 to `most` keys with values in a source, any of them asked for. Then `asked` rows for each distance.

    `keys` different keys, and as many values; `beyond` of them stand in the sources that are longer than any trained.
    """

    most: int = 8
    keys: int = 16
    width: int = 32
    rows: int = 40_000
    asked: int = 500
    distances: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    beyond: int = 16
    beyond_distances: tuple[int, ...] = (1, 2, 4, 6, 8, 10, 12, 14, 16)
    taught: tuple[Taught, ...] = TAUGHT

    @property
    def name(self) -> str:
        """As tables and figures have it."""
        return f"{self.most} of {self.keys} keys"

    @property
    def vocabulary(self) -> int:
        """Keys, values and the question mark."""
        return 2 * self.keys + 1


class Found(NamedTuple):
    """Shares of right answers, `[seeds, distances]`; parameters, last losses `[seeds]`."""

    inside: np.ndarray
    beyond: np.ndarray
    parameters: int
    last_loss: np.ndarray


def rows(config: RecallConfig, seed: int, count: int, length: Any, distance: int | None = None) -> Rows:
    """Sources, filled up to one length, and the one token of each answer."""
    rng = np.random.default_rng((seed, distance or 0))
    sources, targets = data.tasks.recall(rng, count, length, config.vocabulary, distance=distance)
    source, positions = data.pad_rows(sources)
    answers = np.stack(targets)
    start = np.full_like(answers, config.vocabulary)
    weights = np.ones(answers.shape, np.float32)
    return Rows(source=source, source_positions=positions, tokens=start, targets=answers, weights=weights)


@jax.jit
def share(model: Any, batch: Any) -> jax.Array:
    """Of right answers."""
    output = model(batch.source, batch.tokens, source_positions=batch.source_positions)
    return jnp.mean(jnp.argmax(output.logits, axis=-1) == batch.targets)


def run(config: RecallConfig) -> dict[str, Found]:
    """Every model from every seed."""
    source = rows(config, TRAINED_SEED, config.rows, (1, config.most))
    inside = questions(config, config.most, config.distances, source)
    beyond = questions(config, config.beyond, config.beyond_distances, source)
    found = {}
    for taught in config.taught:
        words, longest = config.vocabulary, 2 * config.beyond + 2
        create = pair_model(taught.name, words, words + 2, Sizes(width=config.width), longest)
        learned = learn(create, source, taught.schooling)
        shares = [
            [[float(share(run.model, batch)) for batch in asked] for run in learned] for asked in (inside, beyond)
        ]
        losses = np.array([run.losses[-20:].mean() for run in learned])
        found[taught.name] = Found(*map(np.array, shares), parameters(learned[0].model), losses)
    return found


def questions(config: RecallConfig, length: int, distances: tuple[int, ...], trained: Rows) -> list[Any]:
    """A batch for each distance, all of one length, without the sources that were trained on."""
    known = set(map(tuple, trained.rows.source.tolist()))
    found = []
    for distance in distances:
        drawn = rows(config, ASKED_SEED, DRAWN * config.asked, length, distance).rows
        new = [i for i, source in enumerate(drawn.source.tolist()) if tuple(source) not in known][: config.asked]
        if len(new) < config.asked:
            raise ValueError(
                f"rows: expected few enough that {config.asked} others are left to ask at distance {distance}, got "
                f"{config.rows}, which leave {len(new)}. Take fewer, or more keys."
            )
        found.append(jax.tree.map(lambda x, new=new: x[new], drawn))
    return found


def most_frequent(config: RecallConfig, length: int) -> float:
    """Share of right answers of who knows the values of a source but not their keys, and says the most frequent one."""
    source = rows(config, ASKED_SEED, config.asked, length).rows.source
    values = source[:, 1 : 2 * length : 2]
    return float((values[:, :, None] == values[:, None]).sum(-1).max(-1).mean() / length)
