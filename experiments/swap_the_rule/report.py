"""Command of the experiment: train and time every variant, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, seeds
from experiments.swap_the_rule.drawing import draw
from experiments.swap_the_rule.experiment import SMALL, Config, Results, run
from experiments.swap_the_rule.variants import BASE, group_of
from jax_attention import training

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Change one field of a small language model at a time.

    Args:
        config: sizes, training, variants.
        text: a text file; source files of Python's standard library if None.
        small: five variants, short, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    text: Path | None = None
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, print, write."""
    training.keep_freed_memory()
    config = command.chosen_config(options, SMALL)
    results = run(config, options.text or ())
    numbers = result_numbers(config, results)
    print_report(numbers)
    return command.save(options, HERE, config, config.schooling.seeds, results, numbers, lambda: draw(results))


def result_numbers(config: Config, results: Results) -> dict[str, Any]:
    """Losses, differences from the base seed by seed with their bands, relative speed, entropy by layer."""
    base, rows = results.variants[BASE], {}
    for name, variant in results.variants.items():
        ratios = base.seconds / variant.seconds
        rows[name] = {
            "group": group_of(name),
            "first_loss": variant.first,
            "training_loss": variant.training,
            "held_out_loss": variant.held_out,
            "band": seeds.band_numbers(variant.held_out),
            "difference": variant.held_out - base.held_out,
            "difference_band": seeds.band_numbers(variant.held_out - base.held_out),  # of pairs
            "step_milliseconds": 1e3 * float(np.median(variant.seconds)),
            "speed": float(np.median(ratios)),
            "speed_quartiles": np.quantile(ratios, [0.25, 0.75]),
            "entropy": variant.entropy.mean((0, 2)),
            "entropy_by_head": variant.entropy,
            "row_sum": variant.sums.mean((0, 2)),
        }
    return {
        "tokens_per_step": config.schooling.batch_size * config.sizes.context,
        "max_entropy": results.max_entropy,
    } | rows


def print_report(numbers: dict[str, Any]) -> None:
    """Print one line for each variant."""
    print(f"{'':22}{'nats':>8}{'minus base':>20}{'speed':>8}   entropy by layer, sums of rows")
    for name, row in numbers.items():
        if isinstance(row, dict):
            entropies = " ".join(f"{x:.2f}" for x in row["entropy"])
            sums = " ".join(f"{x:.2f}" for x in row["row_sum"])
            difference = seeds.format_band(row["difference_band"], 4, "+")
            print(f"{name:22}{row['band']['mean']:8.4f}{difference:>20}{row['speed']:8.2f}   {entropies}   {sums}")
