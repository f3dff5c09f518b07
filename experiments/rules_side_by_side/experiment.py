"""Settings of the tasks, the layer and the cost measurement, and the run of all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from experiments.rules_side_by_side import cost, layer, tasks
from experiments.seed_training import TrainingConfig
from experiments.seq2seq_models import RULES

SEEDS = (0, 1, 2)
REVERSE = tasks.TaskConfig("reverse", length=8, vocabulary=12, schooling=TrainingConfig(300, 64, 1e-2, SEEDS))
RECALL = tasks.TaskConfig("recall", length=4, vocabulary=13, schooling=TrainingConfig(2000, 64, 1e-2, SEEDS))
LAYER = layer.LayerConfig()
COST = cost.CostConfig()


@dataclass(frozen=True)
class Config:
    """Rules, width of the models, both tasks, the layer, and the measurement of cost."""

    rules: tuple[str, ...] = RULES
    width: int = 32
    reverse: tasks.TaskConfig = REVERSE
    recall: tasks.TaskConfig = RECALL
    layer: layer.LayerConfig = LAYER
    cost: cost.CostConfig = COST


SMALL = Config(
    rules=("dot", "concat", "location"),
    width=16,
    reverse=replace(REVERSE, length=4, vocabulary=6, schooling=TrainingConfig(150, 32, 2e-2, SEEDS[:2]), rows=1000),
    recall=replace(RECALL, length=2, vocabulary=11, schooling=TrainingConfig(300, 32, 2e-2, SEEDS[:2]), rows=600),
    layer=replace(LAYER, rules=("dot", "location"), schooling=TrainingConfig(300, 16, 1e-2, SEEDS[:2])),
    cost=cost.CostConfig(rounds=3, length=256),
)


class Results(NamedTuple):
    """Results by task and rule, by task of the layer and rule, and time and memory by rule."""

    tasks: dict[str, dict[str, tasks.TaskResults]]
    layer: dict[str, dict[str, layer.LayerResults]]
    times: dict[str, float]
    memory: dict[str, cost.Memory]


def run(config: Config | None = None) -> Results:
    """Train every rule on every task, then measure its cost."""
    config = Config() if config is None else config
    return Results(
        {task.name: tasks.run(task, config.rules, config.width) for task in (config.reverse, config.recall)},
        layer.run(config.layer),
        cost.relative_times(config.cost, config.rules, config.width, config.reverse),
        cost.memory_mib(config.cost, config.rules),
    )
