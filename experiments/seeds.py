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
    """Mean over seeds, the first axis, with its 95 % t-interval; the ends are NaN for one seed, which has none."""
    numbers = np.asarray(numbers, np.float64)
    if len(numbers) == 1:
        nothing = np.full(numbers.shape[1:], np.nan)
        return training.ConfidenceInterval(numbers[0], nothing, nothing)
    return training.t_interval(numbers)


def band_numbers(numbers: Any) -> dict[str, Any]:
    """Number of seeds, mean and ends of its interval for results.json; one seed has no ends."""
    mean, low, high = band(numbers)
    return {"n": len(numbers), "mean": mean} | ({"low": low, "high": high} if len(numbers) > 1 else {})


def with_band(numbers: Any) -> dict[str, Any]:
    """The number of each seed, and `band_numbers`."""
    return {"by_seed": np.asarray(numbers, np.float64), **band_numbers(numbers)}


def format_band(numbers: Mapping[str, Any], digits: int = 3, sign: str = "-") -> str:
    """Mean and half the length of its interval as text: `0.912 ± 0.012`, or `0.912 (one seed)`."""
    mean = f"{numbers['mean']:{sign}.{digits}f}"
    if numbers["n"] == 1:
        return f"{mean} (one seed)"
    return f"{mean} \N{PLUS-MINUS SIGN} {(numbers['high'] - numbers['low']) / 2:.{digits}f}"


def describe_bands(count: int) -> str:
    """What the bands of a figure are, for its title."""
    return "no interval (one seed)" if count == 1 else f"95 % t-intervals of the mean over {count} seeds"


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
