"""The figures: right answers by distance, and cost by length."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import seeds
from experiments.long_range.cost import CostConfig
from experiments.long_range.experiment import Config, Results
from experiments.long_range.recall import RecallConfig, RecallResults, most_frequent_value_accuracy

COLOURS = ("#d94801", "#08519c", "#238b45")
MARKS = ("o", "s", "^")


def draw(config: Config, results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files."""
    few, many = results.recall.values()
    return {
        "few_keys": recall_curves(config.few, few),
        "many_keys": recall_curves(config.many, many),
        "cost": cost_curves(config.cost, results.seconds, results.memory),
    }


def recall_curves(config: RecallConfig, results: dict[str, RecallResults]) -> Figure:
    """Draw right answers by distance: means over seeds with bands, seeds as dots; lengths of training on the left."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    panels = (
        (f"{config.most} of {config.keys} keys, as in training", config.most, config.distances, "inside"),
        (f"{config.beyond} keys, more than in training", config.beyond, config.beyond_distances, "beyond"),
    )
    for axes, (title, length, distances, part) in zip((left, right), panels, strict=True):
        for (name, runs), colour, mark in zip(results.items(), COLOURS, MARKS, strict=False):
            shares = getattr(runs, part)
            band = seeds.band(shares)
            axes.plot(distances, band.mean, color=colour, marker=mark, ms=4, label=name)
            axes.fill_between(distances, band.low, band.high, color=colour, alpha=0.2, lw=0)
            for seed in shares:
                axes.plot(distances, seed, ".", color=colour, ms=3)
        level = most_frequent_value_accuracy(config, length)
        axes.axhline(level, color="#555555", lw=1, ls=":", label="the most frequent value")
        axes.set_xticks(distances)
        axes.set_ylim(0, 1.04)
        _finish_axes(axes, title, "distance of the key from the end, in keys")
    left.set_ylabel("share of right answers")
    count = len(next(iter(results.values())).inside)
    figure.suptitle(f"Bands: {seeds.describe_bands(count)}; dots are seeds", fontsize=9)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def cost_curves(config: CostConfig, seconds: dict[str, np.ndarray], memory: dict[str, np.ndarray]) -> Figure:
    """Draw time and memory by length, on logarithmic axes."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    panels = (
        ("time", config.lengths, {name: 1000 * curve for name, curve in seconds.items()}, "milliseconds"),
        ("temporary memory", config.memory_lengths, memory, "MiB"),
    )
    for axes, (title, lengths, curves, unit) in zip((left, right), panels, strict=True):
        for (name, curve), colour, mark in zip(curves.items(), COLOURS, MARKS, strict=True):
            axes.loglog(lengths, curve, color=colour, marker=mark, ms=4, label=name)
        _finish_axes(axes, f"{title}, forward and backward", "length T")
        axes.set_ylabel(unit)
        axes.set_xticks(lengths, [str(length) for length in lengths], fontsize=8)
        axes.minorticks_off()
    left.legend(fontsize=8, frameon=False)
    return figure


def _finish_axes(axes: Any, title: str, xlabel: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel)
    axes.spines[["top", "right"]].set_visible(False)
