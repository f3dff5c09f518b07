"""What several seeds found: numbers with a band, bars with a point for each seed, and all their losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jax_attention import training

COLOURS = ("#969696", "#08519c", "#d94801", "#238b45", "#6a51a3")
SMOOTH = 50
"""So many steps are one point of a curve of losses."""


def band(values: Any) -> training.ConfidenceInterval:
    """The mean over seeds, the first axis, and its bootstrap band; of one seed all three are the same."""
    values = np.asarray(values, np.float64)
    return (
        training.bootstrap(values) if len(values) > 1 else training.ConfidenceInterval(values[0], values[0], values[0])
    )


def banded(values: Any) -> dict[str, Any]:
    """One number for each seed, their mean and its band."""
    return {"by_seed": np.asarray(values, np.float64), **band(values)._asdict()}


def said(numbers: Mapping[str, Any], digits: int = 3) -> str:
    """`0.912 (0.900 to 0.924)`."""
    return f"{numbers['mean']:.{digits}f} ({numbers['low']:.{digits}f} to {numbers['high']:.{digits}f})"


def bars(values: Mapping[str, Mapping[str, Any]], ylabel: str, title: str) -> Figure:
    """A group of bars for each place, a bar for each name: the mean over seeds, and each seed as a point.

    Args:
        values: name -> place -> one number for each seed; the same places for every name.
        ylabel: what the numbers are.
        title: above all.
    """
    places = list(next(iter(values.values())))
    figure = Figure(figsize=(max(5.0, 1.9 * len(places)), 3.4), layout="constrained")
    axes = figure.subplots()
    wide = 0.8 / len(values)
    for i, (name, by_place) in enumerate(values.items()):
        where = np.arange(len(places)) + (i - (len(values) - 1) / 2) * wide
        found = [np.asarray(by_place[place]) for place in places]
        axes.bar(where, [x.mean() for x in found], 0.92 * wide, color=COLOURS[i % len(COLOURS)], label=name)
        for x, some in zip(where, found, strict=True):
            axes.plot([x] * len(some), some, "o", ms=3.5, mfc="white", mec="black", mew=0.7)
    axes.set_xticks(range(len(places)), places, fontsize=9)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=min(3, len(values)), fontsize=8, frameon=False)
    return figure


def curves(losses: Mapping[str, Any], title: str, ylabel: str = "training loss, nats a word") -> Figure:
    """The losses `[seeds, steps]` of each name, in means over `SMOOTH` steps."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for colour, (name, by_seed) in zip(COLOURS, losses.items(), strict=False):
        for i, curve in enumerate(np.asarray(by_seed)):
            each = min(SMOOTH, len(curve))
            means = curve[: len(curve) // each * each].reshape(-1, each).mean(1)
            axes.plot((np.arange(len(means)) + 0.5) * each, means, color=colour, lw=1.2, label=None if i else name)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure
