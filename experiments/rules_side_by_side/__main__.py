"""Train every rule, print the tables, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from experiments import record, seeds
from experiments.rules_side_by_side import SMALL, Config, Results, drawing, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Compare the rules of attention on two tasks.

    Args:
        config: rules, tasks, training, cost.
        small: fewer rules, two seeds and a short training, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(found: Results) -> dict[str, Any]:
    """What was measured, by task and rule; the maps of the figure are left out."""
    tasks = {
        task: {name: told(judged._asdict()) for name, judged in by_rule.items()}
        for task, by_rule in found.tasks.items()
    }
    layer = {
        task: {name: judged._asdict() for name, judged in by_rule.items()} for task, by_rule in found.layer.items()
    }
    memory = {name: mib._asdict() for name, mib in found.memory.items()}
    return {**tasks, "layer": layer, "time_over_dot": found.times, "memory_mib": memory}


def told(judged: dict[str, Any]) -> dict[str, Any]:
    """The fields that are there, and the band of the accuracy."""
    kept = {name: x for name, x in judged.items() if x is not None and name not in ("maps", "source")}
    return kept | {"band": seeds.band(kept["sequences"])._asdict()}


def show(found: Results) -> None:
    """Print a table for each task, then the layer and the cost."""
    for task, by_rule in found.tasks.items():
        print(f"{task:24}{'tokens':>8}{'rows':>8}   band          aim    spread   seeds")
        for name, judged in by_rule.items():
            band = seeds.band(judged.sequences)
            looks = (
                "      -         -" if judged.aim is None else f"{judged.aim.mean():7.3f} {judged.spread.max():9.1e}"
            )
            each = " ".join(f"{share:.3f}" for share in judged.sequences)
            ends = f"{band.low:.3f} - {band.high:.3f}"
            print(f"  {name:22}{judged.tokens.mean():8.3f}{band.mean:8.3f}   {ends}{looks}   {each}")
    for task, by_rule in found.layer.items():
        for name, judged in by_rule.items():
            ends = f"error {judged.first_loss.mean():.2f} -> {judged.error.mean():.2g}, aim {judged.aim.mean():.3f}"
            print(f"nn.Attn {task}, {name}: {ends}, seeds {', '.join(f'{error:.2g}' for error in judged.error)}")
    for name, ratio in found.times.items():
        mib = found.memory.get(name)
        print(
            f"{name:24} time over dot {ratio:5.2f}" + (f", MiB {mib.chosen:7.2f} {mib.reference:7.2f}" if mib else "")
        )


def draw(found: Results) -> dict[str, Figure]:
    """Accuracy, and the maps of reversing, if any rule has some."""
    figures = {"accuracy": drawing.accuracy(found.tasks)}
    attending = {name: judged for name, judged in found.tasks["reverse"].items() if judged.maps is not None}
    return figures | ({"alignments": drawing.alignments(attending)} if attending else {})


def main(given: Options) -> None:
    """Train, print, write."""
    config = SMALL if given.small else given.config
    found = run(config)
    show(found)
    parts = (config.reverse, config.recall, config.layer)
    every = sorted({seed for part in parts for seed in part.schooling.seeds})
    record.keep(given, HERE, config, every, numbers_of(found), lambda: draw(found))


if __name__ == "__main__":
    main(tyro.cli(Options))
