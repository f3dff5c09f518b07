"""Numbers and figures over several seeds: means with a band, bars with a point for each seed, all loss curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jax_attention import training

COLOURS = ("#969696", "#08519c", "#d94801", "#238b45", "#6a51a3")
SMOOTH = 50
"""Number of steps that one point of a loss curve averages."""


def band(numbers: Any) -> training.ConfidenceInterval:
    """Mean over seeds, the first axis, with its bootstrap interval; all three are the same for one seed."""
    numbers = np.asarray(numbers, np.float64)
    if len(numbers) == 1:
        return training.ConfidenceInterval(numbers[0], numbers[0], numbers[0])
    return training.bootstrap(numbers)


def with_band(numbers: Any) -> dict[str, Any]:
    """The number of each seed, their mean and its bootstrap interval."""
    return {"by_seed": np.asarray(numbers, np.float64), **band(numbers)._asdict()}


def format_band(numbers: Mapping[str, Any], digits: int = 3) -> str:
    """Mean and interval as text: `0.912 (0.900 to 0.924)`."""
    return f"{numbers['mean']:.{digits}f} ({numbers['low']:.{digits}f} to {numbers['high']:.{digits}f})"


def bars(numbers: Mapping[str, Mapping[str, Any]], ylabel: str, title: str) -> Figure:
    """Draw a group of bars for each category: the mean over seeds for each name, and each seed as a point.

    Args:
        numbers: name -> category -> one number for each seed; the same categories for every name.
        ylabel: label of the y axis.
        title: title of the figure.
    """
    categories = list(next(iter(numbers.values())))
    figure = Figure(figsize=(max(5.0, 1.9 * len(categories)), 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(numbers)
    for i, (name, by_category) in enumerate(numbers.items()):
        positions = np.arange(len(categories)) + (i - (len(numbers) - 1) / 2) * width
        by_seed = [np.asarray(by_category[category]) for category in categories]
        axes.bar(positions, [x.mean() for x in by_seed], 0.92 * width, color=COLOURS[i % len(COLOURS)], label=name)
        for x, points in zip(positions, by_seed, strict=True):
            axes.plot([x] * len(points), points, "o", ms=3.5, mfc="white", mec="black", mew=0.7)
    axes.set_xticks(range(len(categories)), categories, fontsize=9)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(3, len(numbers)), fontsize=8, frameon=False)
    return figure


def curves(losses: Mapping[str, Any], title: str, ylabel: str = "training loss, nats a word") -> Figure:
    """Draw the losses `[seeds, steps]` of each name, averaged over `SMOOTH` steps."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for colour, (name, by_seed) in zip(COLOURS, losses.items(), strict=False):
        for i, curve in enumerate(np.asarray(by_seed)):
            count = min(SMOOTH, len(curve))
            means = curve[: len(curve) // count * count].reshape(-1, count).mean(1)
            axes.plot((np.arange(len(means)) + 0.5) * count, means, color=colour, lw=1.2, label=None if i else name)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure
