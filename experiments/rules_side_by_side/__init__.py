"""The same two tasks with every scoring rule: who learns them, what do the weights look like, what does a rule cost?

Question: a recurrent encoder and decoder reverses 8 tokens and recalls the value behind a key. Which rules of attention
          let it, and why do the others not?
Command:  python -m experiments.rules_side_by_side
Time:     9 minutes of CPU time.
Result:   concat gives every query the same weights (to 4e-8) and reverses 0.38 of the rows, no attention 0.32, dot,
          additive, general and location 1.00. The cosine is flat at scale 1 (0.56), more so divided by sqrt(d) (0.41),
          and right at 10 (1.00). Recall: dot has 1.00 from each seed, additive from one of three, location 0.70 as
          without attention (0.77).

`rules` has the rules, `tasks` trains and judges, `layer` is attention as a layer (`nn.Attn`) on vectors, `cost` takes
time and memory, `drawing` the figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from experiments.learn import Schooling
from experiments.pair_models import RULES
from experiments.rules_side_by_side import cost, layer, tasks

SEEDS = (0, 1, 2)
REVERSE = tasks.TaskConfig("reverse", length=8, vocabulary=12, schooling=Schooling(300, 64, 1e-2, SEEDS))
RECALL = tasks.TaskConfig("recall", length=4, vocabulary=13, schooling=Schooling(2000, 64, 1e-2, SEEDS))
LAYER = layer.LayerConfig()
COST = cost.CostConfig()


@dataclass(frozen=True)
class Config:
    """Rules, tasks, trainings, and what cost is taken of."""

    rules: tuple[str, ...] = RULES
    width: int = 32
    reverse: tasks.TaskConfig = REVERSE
    recall: tasks.TaskConfig = RECALL
    layer: layer.LayerConfig = LAYER
    cost: cost.CostConfig = COST


SMALL = Config(
    rules=("dot", "concat", "location"),
    width=16,
    reverse=replace(REVERSE, length=4, vocabulary=6, schooling=Schooling(150, 32, 2e-2, SEEDS[:2]), rows=1000),
    recall=replace(RECALL, length=2, vocabulary=11, schooling=Schooling(300, 32, 2e-2, SEEDS[:2]), rows=600),
    layer=replace(LAYER, rules=("dot", "location"), schooling=Schooling(300, 16, 1e-2, SEEDS[:2])),
    cost=cost.CostConfig(rounds=3, length=256),
)


class Results(NamedTuple):
    """By task and rule, by task of vectors and rule, and by rule."""

    tasks: dict[str, dict[str, tasks.Judged]]
    layer: dict[str, dict[str, layer.Judged]]
    times: dict[str, float]
    memory: dict[str, cost.Memory]


def run(config: Config | None = None) -> Results:
    """Everything."""
    config = Config() if config is None else config
    return Results(
        {task.name: tasks.run(task, config.rules, config.width) for task in (config.reverse, config.recall)},
        layer.run(config.layer),
        cost.times(config.cost, config.rules, config.width, config.reverse),
        cost.memory(config.cost, config.rules),
    )
