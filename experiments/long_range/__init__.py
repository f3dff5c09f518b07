"""Recurrence against attention on long sequences: what is still found far back, and what does a longer text cost?

Question: how far back does a model find the value of a key, with and without attention? How do time and memory of a
          recurrent layer and of self-attention grow with the length?
Command:  python -m experiments.long_range
Time:     7 minutes of CPU time.
Result:   with dot a recurrent model answers at every distance, also in sources twice as long (0.998 at least); without
          attention 0.20 to 0.25, as if it knew values without keys; a Transformer needs more training. At T = 8192
          attention by tiles takes 30 MiB, a GRU 40, all scores at once 1162.

`recall` trains and asks, `cost` takes time and memory, `drawing` makes the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from experiments.learn import Schooling
from experiments.long_range import cost, recall

FEW = recall.RecallConfig(
    most=4,
    keys=8,
    distances=(1, 2, 3, 4),
    beyond=8,
    beyond_distances=(1, 2, 3, 4, 5, 6, 7, 8),
    taught=recall.LONGER_TAUGHT,
)
MANY = recall.RecallConfig()
COST = cost.CostConfig()


@dataclass(frozen=True)
class Config:
    """What is trained and asked, and of what the cost is taken."""

    few: recall.RecallConfig = FEW
    many: recall.RecallConfig = MANY
    cost: cost.CostConfig = COST


TAUGHT = recall.Taught("dot", Schooling(800, 32, 1e-2, (0, 1)))
SHORT = replace(
    FEW,
    most=2,
    keys=5,
    width=16,
    rows=2000,
    asked=100,
    distances=(1, 2),
    beyond=4,
    beyond_distances=(1, 4),
    taught=(TAUGHT, replace(TAUGHT, name="no attention")),
)
SMALL = Config(
    SHORT,
    replace(SHORT, keys=6),
    cost.CostConfig(lengths=(64, 128), memory_lengths=(256, 512, 2048), rounds=2),
)


class Results(NamedTuple):
    """By setting and model, and by layer."""

    recall: dict[str, dict[str, recall.Found]]
    seconds: dict[str, np.ndarray]
    memory: dict[str, np.ndarray]


def run(config: Config | None = None) -> Results:
    """Everything."""
    config = Config() if config is None else config
    asked = {setting.name: recall.run(setting) for setting in (config.few, config.many)}
    return Results(asked, cost.seconds(config.cost), cost.memory(config.cost))
