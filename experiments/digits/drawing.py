"""The figures: maps of words over images, mean maps, and accuracy with hidden patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.digits.descriptions import KINDS
from experiments.digits.experiment import Config, Examples, Results
from experiments.digits.hiding import ORDERS, WAYS
from experiments.digits.model import ENCODERS

COLOURS = {"most": "#a50f15", "any": "#555555", "least": "#08519c"}
LABELS = {"most": "most looked at first", "any": "random order", "least": "least looked at first"}
SIDE = 4
"""Patches in a row and in a column."""


def draw(config: Config, results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files."""
    return {
        "words": example_maps(results.examples),
        "maps": mean_maps(results),
        "hiding": hiding_curves(config, results),
    }


def example_maps(examples: Examples) -> Figure:
    """Draw a row for each image: the image, then for each word the image in grey under the weights in red."""
    figure = Figure(figsize=(9.2, 1.75 * len(examples.images)), layout="constrained")
    grid = figure.subplots(len(examples.images), len(KINDS) + 1, squeeze=False)
    top = examples.maps.max()
    for row, image, words, maps in zip(grid, examples.images, examples.words, examples.maps, strict=True):
        _empty_axes(row[0], "image").imshow(image, cmap="Greys", vmin=0, vmax=1)
        for axes, word, weights in zip(row[1:], words, maps, strict=True):
            _empty_axes(axes, word).imshow(image, cmap="Greys", vmin=0, vmax=1.6)
            overlay = axes.imshow(
                weights.reshape(SIDE, SIDE), cmap="Reds", vmin=0, vmax=top, alpha=0.55, extent=(-0.5, 7.5, 7.5, -0.5)
            )
    figure.colorbar(overlay, ax=grid, label="weight", shrink=0.7)
    return figure


def mean_maps(results: Results) -> Figure:
    """Draw the mean weight of each patch over images and seeds, by kind of word; uniform weights would be 0.06."""
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    grid = figure.subplots(len(ENCODERS), len(KINDS), squeeze=False)
    means = {name: np.mean([model.maps for model in models], 0) for name, models in results.models.items()}
    top = max(mean.max() for mean in means.values())
    for row, (name, mean) in zip(grid, means.items(), strict=True):
        for axes, kind, weights in zip(row, KINDS, mean, strict=True):
            image = _empty_axes(axes, kind).imshow(weights.reshape(SIDE, SIDE), cmap="Reds", vmin=0, vmax=top)
            for (down, right), weight in np.ndenumerate(weights.reshape(SIDE, SIDE)):
                ink = "white" if weight > 0.6 * top else "black"
                axes.text(right, down, f"{weight:.2f}", ha="center", va="center", fontsize=8, color=ink)
        row[0].set_ylabel(f"{name}:\n{ENCODERS[name]}", fontsize=9)
    figure.colorbar(image, ax=grid, label="weight", shrink=0.8)
    figure.suptitle("Where each word looks on average (even: 0.06)", fontsize=11)
    return figure


def hiding_curves(config: Config, results: Results) -> Figure:
    """Draw the share of right digit words for both encoders and both ways of hiding; bands span all seeds."""
    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    grid = figure.subplots(len(ENCODERS), len(WAYS), sharex=True, sharey=True, squeeze=False)
    kind = KINDS.index("digit")
    for row, (name, models) in zip(grid, results.models.items(), strict=True):
        for axes, way in zip(row, WAYS, strict=True):
            right = np.stack([model.hidden[way][:, :, kind] for model in models])
            none_hidden = np.array([model.right[kind] for model in models])[:, None, None]
            right = np.concatenate([np.broadcast_to(none_hidden, (*right.shape[:2], 1)), right], axis=-1)
            for i, order in enumerate(ORDERS):
                curve = right[:, i]
                axes.plot((0, *config.counts), curve.mean(0), "o-", ms=3, color=COLOURS[order], label=LABELS[order])
                axes.fill_between(
                    (0, *config.counts), curve.min(0), curve.max(0), color=COLOURS[order], alpha=0.2, lw=0
                )
            axes.set_title(f"{name}, hidden patches are {way}", fontsize=10)
            axes.set_ylim(0, 1)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("digit words right (share)")
    for axes in grid[-1]:
        axes.set_xlabel("hidden patches, of 16")
    grid[0, 1].legend(fontsize=8, frameon=False, loc="upper right")
    return figure


def _empty_axes(axes: Any, title: str) -> Any:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes
