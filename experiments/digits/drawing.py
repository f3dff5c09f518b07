"""The figures: words over images, where words look on average, and what is lost with hidden patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.digits import Config, Results, Shown
from experiments.digits.descriptions import KINDS
from experiments.digits.hiding import ORDERS, WAYS
from experiments.digits.model import SEES

COLOURS = {"most": "#a50f15", "any": "#555555", "least": "#08519c"}
SIDE = 4
"""Patches from left to right."""


def draw(config: Config, found: Results) -> dict[str, Figure]:
    """All three."""
    return {"words": words(found.shown), "maps": maps(found), "hiding": hiding(config, found)}


def words(shown: Shown) -> Figure:
    """A row for each image; beside it, once for each word, the image in grey below the weights in red."""
    figure = Figure(figsize=(9.2, 1.75 * len(shown.images)), layout="constrained")
    grid = figure.subplots(len(shown.images), len(KINDS) + 1, squeeze=False)
    top = shown.maps.max()
    for row, image, said, looked in zip(grid, shown.images, shown.words, shown.maps, strict=True):
        _bare(row[0], "image").imshow(image, cmap="Greys", vmin=0, vmax=1)
        for axes, word, weights in zip(row[1:], said, looked, strict=True):
            _bare(axes, word).imshow(image, cmap="Greys", vmin=0, vmax=1.6)
            over = axes.imshow(
                weights.reshape(SIDE, SIDE), cmap="Reds", vmin=0, vmax=top, alpha=0.55, extent=(-0.5, 7.5, 7.5, -0.5)
            )
    figure.colorbar(over, ax=grid, label="weight", shrink=0.7)
    return figure


def maps(found: Results) -> Figure:
    """The mean weight of each patch, by kind of word, mean over seeds; even weights would be 0.06 everywhere."""
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    grid = figure.subplots(len(SEES), len(KINDS), squeeze=False)
    means = {name: np.mean([model.maps for model in models], 0) for name, models in found.models.items()}
    top = max(mean.max() for mean in means.values())
    for row, (name, mean) in zip(grid, means.items(), strict=True):
        for axes, kind, weights in zip(row, KINDS, mean, strict=True):
            image = _bare(axes, kind).imshow(weights.reshape(SIDE, SIDE), cmap="Reds", vmin=0, vmax=top)
            for (down, right), weight in np.ndenumerate(weights.reshape(SIDE, SIDE)):
                ink = "white" if weight > 0.6 * top else "black"
                axes.text(right, down, f"{weight:.2f}", ha="center", va="center", fontsize=8, color=ink)
        row[0].set_ylabel(f"{name}:\n{SEES[name]}", fontsize=9)
    figure.colorbar(image, ax=grid, label="weight", shrink=0.8)
    figure.suptitle("Where each word looks on average (even: 0.06)", fontsize=11)
    return figure


def hiding(config: Config, found: Results) -> Figure:
    """How many digit words stay right, for both encoders and both ways to hide; the bands span all seeds."""
    figure = Figure(figsize=(9.2, 5.6), layout="constrained")
    grid = figure.subplots(len(SEES), len(WAYS), sharex=True, sharey=True, squeeze=False)
    kind = KINDS.index("digit")
    for row, (name, models) in zip(grid, found.models.items(), strict=True):
        for axes, way in zip(row, WAYS, strict=True):
            right = np.stack([model.hidden[way][:, :, kind] for model in models])
            whole = np.array([model.right[kind] for model in models])[:, None, None]
            right = np.concatenate([np.broadcast_to(whole, (*right.shape[:2], 1)), right], axis=-1)
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


LABELS = {"most": "most looked at first", "any": "random order", "least": "least looked at first"}


def _bare(axes: Any, title: str) -> Any:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes
