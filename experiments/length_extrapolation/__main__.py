"""Train every scheme, read beyond the trained length, print the table, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments import record, seeds
from experiments.length_extrapolation import SMALL, Config, run
from experiments.length_extrapolation.drawing import draw
from jax_attention import training

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Read beyond the trained length.

    Args:
        config: sizes, training, schemes.
        text: a file to read; sources of Python's standard library if none.
        small: three schemes, short, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    text: Path | None = None
    small: bool = False
    out: Path | None = None


def stretches(config: Config) -> dict[str, slice]:
    """Positions by how far out they are: the second half of the trained length, then each doubling."""
    length, found = config.sizes.context, {}
    start = length // 2
    while start < config.longest:
        stop = min(2 * start, config.longest)
        found[f"{start} to {stop - 1}"] = slice(start, stop)
        start = stop
    return found


def numbers_of(config: Config, curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """Each reading's loss by stretch, and how far the last stretch lies above the first; with bands over seeds."""
    found: dict[str, Any] = {}
    for name, curve in curves.items():
        means = {stretch: curve[:, places].mean(-1) for stretch, places in stretches(config).items()}
        first, *_, last = means.values()
        found[name] = {
            "loss": means,
            "band": {stretch: seeds.band(mean)._asdict() for stretch, mean in means.items()},
            "rise": last - first,
            "rise_band": seeds.band(last - first)._asdict(),
            "curve": curve.reshape(len(curve), -1, max(config.sizes.context // 8, 1)).mean(-1),
        }
    return found


def show(config: Config, numbers: dict[str, Any]) -> None:
    """Print one line for each reading."""
    print(f"{'positions':22}" + "".join(f"{stretch:>12}" for stretch in stretches(config)) + "        rise")
    for name, row in numbers.items():
        means = "".join(f"{band['mean']:12.4f}" for band in row["band"].values())
        rise = row["rise_band"]
        print(f"{name:22}{means}{rise['mean']:+12.4f}  ({rise['low']:+.4f} to {rise['high']:+.4f})")


def main(given: Options) -> None:
    """Train, read, print, write."""
    training.keep_freed_memory()
    config = SMALL if given.small else given.config
    curves = run(config, given.text or ())
    numbers = numbers_of(config, curves)
    show(config, numbers)
    record.keep(given, HERE, config, config.schooling.seeds, numbers, lambda: draw(config, curves))


if __name__ == "__main__":
    main(tyro.cli(Options))
