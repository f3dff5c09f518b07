"""Train, ask, take cost; print the tables, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure

from experiments import record, seeds
from experiments.long_range import SMALL, Config, Results, drawing, run
from experiments.long_range.cost import growth
from experiments.long_range.recall import Found

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Compare recurrence and attention on long sequences.

    Args:
        config: recall of few and of many keys, and cost.
        small: one model for each setting, short sources and lengths, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(config: Config, found: Results) -> dict[str, Any]:
    """Right answers with bands, by setting and model; time and memory with their growth, by layer."""
    recall = {setting: {name: told(runs) for name, runs in models.items()} for setting, models in found.recall.items()}
    parts = {"seconds": (config.cost.lengths, found.seconds), "mib": (config.cost.memory_lengths, found.memory)}
    cost = {
        part: {name: {"values": curve, "growth": growth(lengths, curve)} for name, curve in curves.items()}
        for part, (lengths, curves) in parts.items()
    }
    return {"recall": recall, **cost}


def told(runs: Found) -> dict[str, Any]:
    """The numbers of one model, and their bands over the seeds."""
    return runs._asdict() | {
        "bands": {part: seeds.band(getattr(runs, part))._asdict() for part in ("inside", "beyond")}
    }


def show(config: Config, found: Results) -> None:
    """Print shares by distance, then cost by length."""
    for setting, models in zip((config.few, config.many), found.recall.values(), strict=True):
        for part, distances in (("inside", setting.distances), ("beyond", setting.beyond_distances)):
            print(f"{setting.name + ', ' + part:32}" + "".join(f"{distance:7}" for distance in distances))
            for name, runs in models.items():
                for seed in getattr(runs, part):
                    print(f"  {name:30}" + "".join(f"{share:7.3f}" for share in seed))
    told = (("ms", config.cost.lengths, found.seconds, 1000), ("MiB", config.cost.memory_lengths, found.memory, 1))
    for unit, lengths, curves, factor in told:
        print(f"{unit + ', length':32}" + "".join(f"{length:9}" for length in lengths))
        for name, curve in curves.items():
            row = "".join(f"{factor * value:9.2f}" for value in curve)
            print(f"  {name:30}{row}   grows as T^{growth(lengths, curve):.2f}")


def draw(config: Config, found: Results) -> dict[str, Figure]:
    """Answers by distance, cost by length."""
    few, many = found.recall.values()
    return {
        "few_keys": drawing.answers(config.few, few),
        "many_keys": drawing.answers(config.many, many),
        "cost": drawing.cost(config.cost, found.seconds, found.memory),
    }


def main(given: Options) -> None:
    """Run, print, write."""
    config = SMALL if given.small else given.config
    found = run(config)
    show(config, found)
    used = config.many.taught[0].schooling.seeds
    record.keep(given, HERE, config, used, numbers_of(config, found), lambda: draw(config, found))


if __name__ == "__main__":
    main(tyro.cli(Options))
