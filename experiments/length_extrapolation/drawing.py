"""The figures: loss by position for the schemes, and its change by test-time changes of the config."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import seeds
from experiments.length_extrapolation.experiment import LONG, Config, evaluations

COLOURS = ("#08519c", "#238b45", "#b8860b", "#d94801", "#6a51a3", "#c51b7d")


def draw(config: Config, curves: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Draw all figures, by the names of their files.

    Some positions of the text are harder than others, so all curves are differences on the same text. They are taken
    seed by seed: with the mean over seeds of one side, the intervals would leave out that this side varies too.
    """
    schemes = {scheme: curves[scheme] - curves[LONG] for scheme in config.schemes}
    changed = {
        name: curves[name] - curves[evaluation.scheme]
        for name, evaluation in evaluations(config).items()
        if evaluation.changes
    }
    length = config.sizes.context
    return {
        "schemes": position_curves(
            config,
            schemes,
            f"Trained on rows of {length}, read further",
            f"nats per byte minus those of\nthe model trained on rows of {config.longest}",
        ),
        "changes": position_curves(
            config,
            changed,
            f"Trained on rows of {length}, changed at test time",
            "nats per byte minus those of\nthe same parameters as they were trained",
        ),
    }


def position_curves(config: Config, curves: dict[str, np.ndarray], title: str, label: str) -> Figure:
    """Draw curves `[seeds, T]` in bins of a quarter of the trained length: mean and band over seeds."""
    length = config.sizes.context
    width = max(length // 4, 1)
    middle = (np.arange(config.longest // width) + 0.5) * width
    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        band = seeds.band(curve.reshape(len(curve), -1, width).mean(-1))
        axes.fill_between(middle, band.low, band.high, color=colour, alpha=0.2, lw=0)
        axes.plot(middle, band.mean, color=colour, lw=1.5, label=name)
    axes.axhline(0, color="#888888", lw=1)
    axes.axvline(length, color="#888888", lw=1, ls=":", label="trained length")
    axes.set_xlim(0, config.longest)
    axes.set_xticks(np.arange(config.times + 1) * length)
    axes.set_xlabel("position")
    axes.set_ylabel(label)
    count = len(next(iter(curves.values())))
    axes.set_title(f"{title}\n{seeds.describe_bands(count)}", fontsize=10)
    figure.legend(fontsize=8, frameon=False, loc="outside right center")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
