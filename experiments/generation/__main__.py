"""Train, write texts, judge them, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments import record, seeds
from experiments.generation import SMALL, Config, Made, Results, judging, run
from experiments.generation.drawing import draw

HERE = Path(__file__).parent
COUNTED = ("words", "pairs of words")
SHOWN = 3
"""So many texts of the first seed are printed and kept."""


@dataclass(frozen=True)
class Options:
    """Let small language models write, and judge what they wrote.

    Args:
        config: texts, sizes, training.
        small: a smaller model and a short training, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(found: Results) -> dict[str, Any]:
    """Losses on held-out texts, shares of texts that pass each check, and the first texts."""
    baselines = {
        which: {name: counted._asdict() for name, counted in zip(COUNTED, both, strict=True)}
        for which, both in found.baselines.items()
    }
    return {
        "counts": baselines,
        "own": {check: share(getattr(found.own, check)) for check in judging.Judged._fields},
        "models": {name: made_numbers(made) for name, made in found.made.items()},
    }


def made_numbers(made: Made) -> dict[str, Any]:
    """Of one kind of model."""
    return {
        "parameters": made.parameters,
        "seconds_per_step": made.seconds,
        "held_out": {
            which: {
                "nats_per_token": seeds.banded([one["loss"] for one in by_seed]),
                "bits_per_byte": seeds.banded([one["bits_per_byte"] for one in by_seed]),
            }
            for which, by_seed in made.held_out.items()
        },
        "judged": {
            check: seeds.banded([share(getattr(one, check)) for one in made.judged]) for check in judging.Judged._fields
        },
        "written": made.written[0][:SHOWN],
    }


def share(passed: np.ndarray) -> float:
    """The mean, 0 of nothing."""
    return float(passed.mean()) if passed.size else 0.0


def show(numbers: dict[str, Any]) -> None:
    """Print all but the curves."""
    for which, counts in numbers["counts"].items():
        for name, counted in counts.items():
            nats, bits = counted["nats_per_token"], counted["bits_per_byte"]
            print(f"{which}, counts of {name}: {nats:.3f} nats a word, {bits:.3f} bits a byte")
    print("the generator's own texts:", ", ".join(f"{check} {x:.3f}" for check, x in numbers["own"].items()))
    for name, made in numbers["models"].items():
        print(f"{name} ({made['parameters']:,} parameters, {1e3 * made['seconds_per_step']:.0f} ms a step)")
        for which, held in made["held_out"].items():
            nats, bits = (seeds.said(held[unit]) for unit in ("nats_per_token", "bits_per_byte"))
            print(f"    {which}: {nats} nats a word, {bits} bits a byte")
        for check, passed in made["judged"].items():
            print(f"    {check.replace('_', ' ')}: {seeds.said(passed)}")
        for text in made["written"]:
            print(f"    | {text}")


def main(given: Options) -> None:
    """Train, write, judge, print."""
    config = SMALL if given.small else given.config
    found = run(config)
    numbers = numbers_of(found)
    show(numbers)
    record.keep(given, HERE, config, config.schooling.seeds, numbers, lambda: draw(found))


if __name__ == "__main__":
    main(tyro.cli(Options))
