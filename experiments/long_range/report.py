"""Command of the experiment: train, question, measure cost, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import command, seeds
from experiments.long_range.cost import growth_exponent
from experiments.long_range.drawing import draw
from experiments.long_range.experiment import SMALL, Config, Results, run
from experiments.long_range.recall import RecallResults

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Compare recurrence and attention on long sequences.

    Args:
        config: recall of few and of many keys, and cost.
        small: short sources, lengths and training, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Run, print, write."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    print_report(config, results)
    numbers = result_numbers(config, results)
    used_seeds = config.many.taught[0].schooling.seeds
    return command.save(options, HERE, config, used_seeds, results, numbers, lambda: draw(config, results))


def result_numbers(config: Config, results: Results) -> dict[str, Any]:
    """Right answers with bands, by setting and model; time and memory with their growth, by layer."""
    recall = {
        setting: {name: recall_numbers(result) for name, result in by_model.items()}
        for setting, by_model in results.recall.items()
    }
    measured = {
        "seconds": (config.cost.lengths, results.seconds),
        "mib": (config.cost.memory_lengths, results.memory),
    }
    cost = {
        key: {name: {"values": curve, "growth": growth_exponent(lengths, curve)} for name, curve in curves.items()}
        for key, (lengths, curves) in measured.items()
    }
    return {"recall": recall, **cost}


def recall_numbers(result: RecallResults) -> dict[str, Any]:
    """Numbers of one model, and the bands of its shares over seeds."""
    bands = {key: seeds.band_numbers(getattr(result, key)) for key in ("inside", "beyond")}
    return result._asdict() | {"bands": bands}


def print_report(config: Config, results: Results) -> None:
    """Print shares by distance, then cost by length."""
    for setting, by_model in zip((config.few, config.many), results.recall.values(), strict=True):
        for key, distances in (("inside", setting.distances), ("beyond", setting.beyond_distances)):
            print(f"{setting.name + ', ' + key:32}" + "".join(f"{distance:7}" for distance in distances))
            for name, result in by_model.items():
                for shares in getattr(result, key):
                    print(f"  {name:30}" + "".join(f"{share:7.3f}" for share in shares))
    tables = (
        ("ms", config.cost.lengths, results.seconds, 1000),
        ("MiB", config.cost.memory_lengths, results.memory, 1),
    )
    for unit, lengths, curves, factor in tables:
        print(f"{unit + ', length':32}" + "".join(f"{length:9}" for length in lengths))
        for name, curve in curves.items():
            row = "".join(f"{factor * cost:9.2f}" for cost in curve)
            print(f"  {name:30}{row}   grows as T^{growth_exponent(lengths, curve):.2f}")
