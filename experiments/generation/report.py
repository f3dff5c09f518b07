"""Command of the experiment: train, write and check texts, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, seeds
from experiments.generation.checks import CheckResults
from experiments.generation.drawing import draw
from experiments.generation.experiment import SMALL, Config, ModelResults, Results, run

HERE = Path(__file__).parent
BASELINES = ("words", "pairs of words")
SHOWN = 3
"""Number of texts of the first seed that are printed and saved."""


@dataclass(frozen=True)
class Options:
    """Let small language models write, and check their texts.

    Args:
        config: texts, sizes, training.
        small: a smaller model and a short training, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, write texts, check them, print, save."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    numbers = result_numbers(results)
    print_report(numbers)
    return command.save(options, HERE, config, config.schooling.seeds, results, numbers, lambda: draw(results))


def result_numbers(results: Results) -> dict[str, Any]:
    """Losses on held-out texts, shares of texts that pass each check, and the first texts."""
    baselines = {
        which: {name: loss._asdict() for name, loss in zip(BASELINES, losses, strict=True)}
        for which, losses in results.baselines.items()
    }
    return {
        "counts": baselines,
        "generator": {check: share(getattr(results.generator, check)) for check in CheckResults._fields},
        "models": {name: model_numbers(model) for name, model in results.models.items()},
    }


def model_numbers(model: ModelResults) -> dict[str, Any]:
    """Numbers of one kind of model, with bands over seeds."""
    return {
        "parameters": model.parameters,
        "seconds_per_step": model.seconds,
        "held_out": {
            which: {
                "nats_per_token": seeds.with_band([metrics["loss"] for metrics in by_seed]),
                "bits_per_byte": seeds.with_band([metrics["bits_per_byte"] for metrics in by_seed]),
            }
            for which, by_seed in model.held_out.items()
        },
        "checks": {
            check: seeds.with_band([share(getattr(checks, check)) for checks in model.checks])
            for check in CheckResults._fields
        },
        "texts": model.texts[0][:SHOWN],
    }


def share(passed: np.ndarray) -> float:
    """Share of booleans that are true; 0 for an empty array, whose mean is NaN."""
    return float(passed.mean()) if passed.size else 0.0


def print_report(numbers: dict[str, Any]) -> None:
    """Print everything but the curves."""
    for which, counts in numbers["counts"].items():
        for name, loss in counts.items():
            nats, bits = loss["nats_per_token"], loss["bits_per_byte"]
            print(f"{which}, counts of {name}: {nats:.3f} nats a word, {bits:.3f} bits a byte")
    print("texts of the generator:", ", ".join(f"{check} {x:.3f}" for check, x in numbers["generator"].items()))
    for name, model in numbers["models"].items():
        print(f"{name} ({model['parameters']:,} parameters, {1e3 * model['seconds_per_step']:.0f} ms a step)")
        for which, losses in model["held_out"].items():
            nats, bits = (seeds.format_band(losses[unit]) for unit in ("nats_per_token", "bits_per_byte"))
            print(f"    {which}: {nats} nats a word, {bits} bits a byte")
        for check, passed in model["checks"].items():
            print(f"    {check.replace('_', ' ')}: {seeds.format_band(passed)}")
        for text in model["texts"]:
            print(f"    | {text}")
