"""Command of the experiment: train every scheme, evaluate, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, seeds
from experiments.length_extrapolation.drawing import draw
from experiments.length_extrapolation.experiment import SMALL, Config, run
from jax_attention import training

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Evaluate language models beyond the trained length.

    Args:
        config: sizes, training, schemes.
        text: a text file; source files of Python's standard library if None.
        small: three schemes, short, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    text: Path | None = None
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, evaluate, print, write."""
    training.keep_freed_memory()
    config = command.chosen_config(options, SMALL)
    curves = run(config, options.text or ())
    numbers = result_numbers(config, curves)
    print_report(config, numbers)
    return command.save(options, HERE, config, config.schooling.seeds, curves, numbers, lambda: draw(config, curves))


def position_ranges(config: Config) -> dict[str, slice]:
    """Ranges of positions: the second half of the trained length, then each doubling."""
    length, ranges = config.sizes.context, {}
    start = length // 2
    while start < config.longest:
        stop = min(2 * start, config.longest)
        ranges[f"{start} to {stop - 1}"] = slice(start, stop)
        start = stop
    return ranges


def result_numbers(config: Config, curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """Loss of each evaluation by range, and its rise from the first to the last range, with bands over seeds."""
    numbers: dict[str, Any] = {}
    for evaluation, curve in curves.items():
        means = {name: curve[:, slice_].mean(-1) for name, slice_ in position_ranges(config).items()}
        first, *_, last = means.values()
        numbers[evaluation] = {
            "loss": means,
            "band": {name: seeds.band_numbers(mean) for name, mean in means.items()},
            "rise": last - first,
            "rise_band": seeds.band_numbers(last - first),
            "curve": curve.reshape(len(curve), -1, max(config.sizes.context // 8, 1)).mean(-1),
        }
    return numbers


def print_report(config: Config, numbers: dict[str, Any]) -> None:
    """Print one line for each evaluation."""
    print(f"{'positions':22}" + "".join(f"{name:>12}" for name in position_ranges(config)) + f"{'rise':>20}")
    for name, row in numbers.items():
        means = "".join(f"{band['mean']:12.4f}" for band in row["band"].values())
        print(f"{name:22}{means}{seeds.format_band(row['rise_band'], 4, '+'):>20}")
