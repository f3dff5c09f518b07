"""The figures: accuracy by rule and task with a dot for each seed, and attention maps of a reversed row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import seeds
from experiments.rules_side_by_side.experiment import Results
from experiments.rules_side_by_side.tasks import TaskResults

SHOWN = ("dot", "cosine", "additive", "concat", "location")
COLOURS = ("#9ecae1", "#08519c")


def draw(results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files; maps only if a rule has some."""
    figures = {"accuracy": accuracy_bars(results.tasks)}
    with_maps = {name: result for name, result in results.tasks["reverse"].items() if result.maps is not None}
    return figures | ({"alignments": attention_maps(with_maps)} if with_maps else {})


def accuracy_bars(results: dict[str, dict[str, TaskResults]]) -> Figure:
    """Draw the mean over seeds as a bar, its t-interval, and the seeds."""
    names = list(next(iter(results.values())))
    figure = Figure(figsize=(7.5, 0.36 * len(names) + 1.4), layout="constrained")
    for axes, (task, by_rule) in zip(
        figure.subplots(1, len(results), sharey=True, squeeze=False)[0], results.items(), strict=True
    ):
        for row, name in enumerate(names):
            shares = by_rule[name].sequences
            band = seeds.band(shares)
            axes.barh(row, band.mean, color=COLOURS[0], height=0.7)
            axes.plot([band.low, band.high], [row, row], color=COLOURS[1], lw=2)
            axes.plot(shares, [row] * len(shares), "o", color=COLOURS[1], ms=4)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1.03)
        axes.set_title(task, fontsize=11)
        axes.set_xlabel("share of held-out rows written rightly")
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    count = len(next(iter(next(iter(results.values())).values())).sequences)
    figure.suptitle(f"Bars are means, dots seeds, lines {seeds.describe_bands(count)}", fontsize=9)
    return figure


def attention_maps(results: dict[str, TaskResults], seed: int = 0) -> Figure:
    """Draw the maps of one row next to each other, on one scale: 0 white, 1 dark."""
    names = [name for name in SHOWN if name in results] or list(results)[: len(SHOWN)]
    figure = Figure(figsize=(2.1 * len(names) + 1.2, 3.0), layout="constrained")
    grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        result = results[name]
        drawn = axes.imshow(result.maps[seed], cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"{name}: {result.sequences[seed]:.0%} right", fontsize=10)
        words = [str(token) for token in result.source]
        _set_ticks(axes, words, [*words[::-1], "stop"])
        axes.set_xlabel("read")
    grid[0].set_ylabel("written")
    figure.colorbar(drawn, ax=grid, label="weight")
    return figure


def _set_ticks(axes: Any, across: Sequence[str], down: Sequence[str]) -> None:
    axes.set_xticks(np.arange(len(across)), across, fontsize=8)
    axes.set_yticks(np.arange(len(down)), down, fontsize=8)
    axes.tick_params(length=0)
