"""Settings of the recall task and of the cost measurement, and the run of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from experiments.long_range import cost, recall
from experiments.seed_training import TrainingConfig

FEW = recall.RecallConfig(
    most=4,
    keys=8,
    distances=(1, 2, 3, 4),
    beyond=8,
    beyond_distances=(1, 2, 3, 4, 5, 6, 7, 8),
    taught=recall.LONGER_TRAININGS,
)
MANY = recall.RecallConfig()
COST = cost.CostConfig()


@dataclass(frozen=True)
class Config:
    """Recall with few and with many keys, and the measurement of cost."""

    few: recall.RecallConfig = FEW
    many: recall.RecallConfig = MANY
    cost: cost.CostConfig = COST


SHORT_TRAINING = recall.ModelTraining("dot", TrainingConfig(800, 32, 1e-2, (0, 1)))
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
    taught=(SHORT_TRAINING, replace(SHORT_TRAINING, name="no attention")),
)
SMALL = Config(
    SHORT,
    replace(SHORT, keys=6),
    cost.CostConfig(lengths=(64, 128), memory_lengths=(256, 512, 2048), rounds=2),
)


class Results(NamedTuple):
    """Recall by setting and model; seconds and MiB by layer, `[lengths]` each."""

    recall: dict[str, dict[str, recall.RecallResults]]
    seconds: dict[str, np.ndarray]
    memory: dict[str, np.ndarray]


def run(config: Config | None = None) -> Results:
    """Train and question the models in both settings, then measure the cost of the layers."""
    config = Config() if config is None else config
    by_setting = {setting.name: recall.run(setting) for setting in (config.few, config.many)}
    return Results(by_setting, cost.seconds(config.cost), cost.memory(config.cost))
