"""The figures: losses relative to the base, speed, and entropy of the maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import seeds
from experiments.swap_the_rule.experiment import Results
from experiments.swap_the_rule.variants import BASE, GROUPS, group_of

COLOURS = dict(zip(GROUPS, ("#333333", "#08519c", "#6a51a3", "#d94801", "#238b45", "#b8860b"), strict=True))
LINEAR_UP_TO = 0.05
"""Difference in nats up to which the axis is linear; beyond, it is logarithmic."""
TICKS = (-0.1, -0.05, 0, 0.05, 0.1, 0.2, 0.5)


def draw(results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files."""
    return {"losses": loss_differences(results), "speed_and_entropy": speed_and_entropy(results)}


def loss_differences(results: Results) -> Figure:
    """Draw differences from the base: a dot for each seed, a bar for the interval of their mean."""
    figure, (axes,) = _variant_axes(results, 1)
    base = results.variants[BASE]
    ends = [-LINEAR_UP_TO, LINEAR_UP_TO]
    for row, (name, variant) in enumerate(results.variants.items()):
        colour, difference = COLOURS[group_of(name)], variant.held_out - base.held_out
        band = seeds.band(difference)
        ends += [*difference, band.low, band.high]
        axes.plot([band.low, band.high], [row, row], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        axes.plot(difference, np.full(len(difference), row), "o", color=colour, ms=4)
    axes.axvline(0, color="#888888", lw=1)
    axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=0.7)
    axes.set_xticks(TICKS, [f"{tick:+g}" if tick else "0" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_xlim(1.2 * float(np.nanmin(ends)), 1.2 * float(np.nanmax(ends)))  # one seed has the ends NaN
    axes.set_xlabel(f"held-out loss minus that of the base, nats per byte (linear up to {LINEAR_UP_TO})", fontsize=9)
    axes.set_title(f"One field changed; dots are seeds, bars {seeds.describe_bands(len(base.held_out))}", fontsize=9)
    return figure


def speed_and_entropy(results: Results) -> Figure:
    """Draw the speed relative to the base with quartiles over rounds, and the entropy of each layer."""
    figure, (left, right) = _variant_axes(results, 2)
    base = results.variants[BASE]
    marks = "os^Dv"
    for row, (name, variant) in enumerate(results.variants.items()):
        colour = COLOURS[group_of(name)]
        low, middle, high = np.quantile(base.seconds / variant.seconds, [0.25, 0.5, 0.75])
        left.plot([low, high], [row, row], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
        left.plot(middle, row, "o", color=colour, ms=4)
        for layer, entropy in enumerate(variant.entropy.mean((0, 2))):
            label = f"layer {layer}" if name == BASE else None
            filled = {"color": colour, "fillstyle": "none" if layer else "full"}
            right.plot(entropy, row, marks[layer % len(marks)], ms=5, label=label, **filled)
    left.axvline(1, color="#888888", lw=1)
    left.set_xlim(left=0)
    left.set_xlabel("tokens per second relative to the base", fontsize=9)
    left.set_title("Speed: median and quartiles", fontsize=10)
    right.axvline(results.max_entropy, color="#888888", lw=1, ls=":", label="uniform")
    right.set_xlabel("entropy of a row, nats", fontsize=9)
    right.set_title("How widely it looks", fontsize=10)
    right.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.15))
    return figure


def _variant_axes(results: Results, count: int) -> tuple[Figure, Any]:
    """Figure with `count` panels that share a row for each variant, the base on top."""
    names = list(results.variants)
    figure = Figure(figsize=(7.2, 1.1 + 0.24 * len(names)), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    panels[0].set_yticks(range(len(names)), names, fontsize=9)
    for label, name in zip(panels[0].get_yticklabels(), names, strict=True):
        label.set_color(COLOURS[group_of(name)])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    for axes in panels:
        axes.grid(axis="x", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels
