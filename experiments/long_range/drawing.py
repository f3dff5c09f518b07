"""Figures: right answers by distance, and cost by length."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import seeds
from experiments.long_range.cost import CostConfig
from experiments.long_range.recall import Found, RecallConfig, most_frequent

COLOURS = ("#d94801", "#08519c", "#238b45")
MARKS = ("o", "s", "^")


def answers(config: RecallConfig, found: dict[str, Found]) -> Figure:
    """Means over the seeds, with bands, and each seed as a dot; the left half as in training, the right one longer."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    halves = figure.subplots(1, 2, sharey=True)
    told = (
        (f"{config.most} of {config.keys} keys, as in training", config.most, config.distances, "inside"),
        (f"{config.beyond} keys, more than in training", config.beyond, config.beyond_distances, "beyond"),
    )
    for axes, (title, length, distances, part) in zip(halves, told, strict=True):
        for (name, runs), colour, mark in zip(found.items(), COLOURS, MARKS, strict=False):
            shares = getattr(runs, part)
            band = seeds.band(shares)
            axes.plot(distances, band.mean, color=colour, marker=mark, ms=4, label=name)
            axes.fill_between(distances, band.low, band.high, color=colour, alpha=0.2, lw=0)
            for seed in shares:
                axes.plot(distances, seed, ".", color=colour, ms=3)
        level = most_frequent(config, length)
        axes.axhline(level, color="#555555", lw=1, ls=":", label="the most frequent value")
        axes.set_xticks(distances)
        axes.set_ylim(0, 1.04)
        _finish(axes, title, "distance of the key from the end, in keys")
    halves[0].set_ylabel("share of right answers")
    figure.suptitle("Means and their 95 % bands; dots are seeds", fontsize=9)
    figure.legend(
        *halves[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9, frameon=False
    )
    return figure


def cost(config: CostConfig, seconds: dict[str, np.ndarray], memory: dict[str, np.ndarray]) -> Figure:
    """Time and memory, both on logarithmic axes."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    halves = figure.subplots(1, 2)
    told = (
        ("time", config.lengths, {name: 1000 * taken for name, taken in seconds.items()}, "milliseconds"),
        ("temporary memory", config.memory_lengths, memory, "MiB"),
    )
    for axes, (title, lengths, curves, unit) in zip(halves, told, strict=True):
        for (name, curve), colour, mark in zip(curves.items(), COLOURS, MARKS, strict=True):
            axes.loglog(lengths, curve, color=colour, marker=mark, ms=4, label=name)
        _finish(axes, f"{title}, forward and backward", "length T")
        axes.set_ylabel(unit)
        axes.set_xticks(lengths, [str(length) for length in lengths], fontsize=8)
        axes.minorticks_off()
    halves[0].legend(fontsize=8, frameon=False)
    return figure


def _finish(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
