"""Command of the experiment: train every rule, measure cost, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import command, seeds
from experiments.rules_side_by_side.drawing import draw
from experiments.rules_side_by_side.experiment import SMALL, Config, Results, run
from experiments.rules_side_by_side.tasks import TaskResults

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Compare the rules of attention on two tasks.

    Args:
        config: rules, tasks, training, cost.
        small: fewer rules, two seeds and a short training, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, print, write."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    print_report(results)
    parts = (config.reverse, config.recall, config.layer)
    all_seeds = sorted({seed for part in parts for seed in part.schooling.seeds})
    numbers = result_numbers(results)
    return command.save(options, HERE, config, all_seeds, results, numbers, lambda: draw(results))


def result_numbers(results: Results) -> dict[str, Any]:
    """All measurements by task and rule, without the maps of the figure."""
    tasks = {
        task: {name: task_numbers(result) for name, result in by_rule.items()}
        for task, by_rule in results.tasks.items()
    }
    layer = {
        task: {name: result._asdict() for name, result in by_rule.items()} for task, by_rule in results.layer.items()
    }
    memory = {name: mib._asdict() for name, mib in results.memory.items()}
    return {**tasks, "layer": layer, "time_over_dot": results.times, "memory_mib": memory}


def task_numbers(result: TaskResults) -> dict[str, Any]:
    """Measurements of one rule on one task, and the band of its accuracy."""
    numbers = {name: x for name, x in result._asdict().items() if x is not None and name not in ("maps", "source")}
    return numbers | {"band": seeds.band_numbers(result.sequences)}


def print_report(results: Results) -> None:
    """Print a table for each task, then the layer and the cost."""
    for task, by_rule in results.tasks.items():
        print(f"{task:24}{'tokens':>8}{'rows':>16}    aim    spread   seeds")
        for name, result in by_rule.items():
            weights = (
                "      -         -" if result.aim is None else f"{result.aim.mean():7.3f} {result.spread.max():9.1e}"
            )
            by_seed = " ".join(f"{share:.3f}" for share in result.sequences)
            rows = seeds.format_band(seeds.band_numbers(result.sequences))
            print(f"  {name:22}{result.tokens.mean():8.3f}{rows:>16}{weights}   {by_seed}")
    for task, by_rule in results.layer.items():
        for name, result in by_rule.items():
            ends = f"error {result.first_loss.mean():.2f} -> {result.error.mean():.2g}, aim {result.aim.mean():.3f}"
            print(f"nn.Attn {task}, {name}: {ends}, seeds {', '.join(f'{error:.2g}' for error in result.error)}")
    for name, ratio in results.times.items():
        mib = results.memory.get(name)
        memory = f", MiB {mib.chosen:7.2f} {mib.reference:7.2f}" if mib else ""
        print(f"{name:24} time over dot {ratio:5.2f}{memory}")
