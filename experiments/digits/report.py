"""Command of the experiment: train, print accuracies and maps, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, seeds
from experiments.digits.descriptions import KINDS
from experiments.digits.drawing import draw
from experiments.digits.experiment import SMALL, Config, Results, run
from experiments.digits.hiding import ORDERS, WAYS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Describe handwritten digits in words, and measure where each word looks.

    Args:
        config: sizes, training, hiding.
        small: a short training of one narrow model of each kind, where config is not changed.
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
    print_report(config, results)
    numbers = result_numbers(results)
    return command.save(options, HERE, config, config.schooling.seeds, results, numbers, lambda: draw(config, results))


def result_numbers(results: Results) -> dict[str, Any]:
    """All measurements: one entry for each seed, and in the last axis for each kind of word."""
    numbers: dict[str, Any] = {
        "kinds": KINDS,
        "orders": ORDERS,
        "commonest": results.commonest,
        "blind": results.blind,
    }
    for name, models in results.models.items():
        rows = {key: [getattr(model, key) for model in models] for key in ("right", "written", "other_image", "maps")}
        hidden = {key: [model.hidden[key] for model in models] for key in (*WAYS, "empty")}
        numbers[name] = rows | {"edge_weight": [edge_weight(model.maps) for model in models], "hidden": hidden}
    return numbers


def edge_weight(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Share of the weight in the upper and in the lower row of patches, `[kinds]`; uniform weights have 0.25."""
    rows = maps.reshape(len(KINDS), 4, 4).sum(-1)
    return {"top": rows[:, 0], "bottom": rows[:, -1]}


def print_report(config: Config, results: Results) -> None:
    """Print a table for each question."""
    print("share of right words on held-out images, mean over seeds and half of its 95 % interval")
    print(" " * 32, *(f"{kind:>18}" for kind in KINDS))
    print("commonest word".ljust(32), *(f"{share:18.3f}" for share in results.commonest))
    _print_bands("never sees an image", results.blind)
    labels = (("right", ""), ("written", ", after its own words"), ("other_image", ", another image"))
    for name, models in results.models.items():
        for key, label in labels:
            _print_bands(f"{name}{label}", np.array([getattr(model, key) for model in models]))
    for name, models in results.models.items():
        for edge in ("top", "bottom"):
            _print_bands(f"{name}, weight in {edge} row", np.array([edge_weight(model.maps)[edge] for model in models]))
    for name, models in results.models.items():
        for way in (*WAYS, "empty"):
            shares = np.mean([model.hidden[way] for model in models], 0)
            print(f"\n{name}, {way}; hidden patches: {config.counts}")
            for kind in ("digit", "top"):
                for order, row in zip(ORDERS, shares[:, :, KINDS.index(kind)], strict=True):
                    print(f"  {kind:6} {order:6}", *(f"{share:6.2f}" for share in row))


def _print_bands(name: str, shares: np.ndarray) -> None:
    print(name.ljust(32), *(f"{seeds.format_band(seeds.band_numbers(of_kind)):>18}" for of_kind in shares.T))
