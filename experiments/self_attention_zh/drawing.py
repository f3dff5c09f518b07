"""The figures: maps of the first sentence before and after training, and all loss curves."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.self_attention_zh.experiment import Config, Results
from jax_attention import viz


def draw(config: Config, results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files; maps are those of the first seed."""
    words, seed = config.sentences[0], config.seeds[0]
    drawn = {"no_parameters": viz.heat_map(results.free_weights[0], words, title="softmax(X Xᵀ), no parameters")}
    for name, trained in results.trained.items():
        for when, maps in (("before", trained.before[0, 0]), ("after", trained.after[0, 0])):
            title = f"{name}, {when} training, seed {seed}"
            file = f"{name}_{when}".replace(" ", "_")
            drawn[file] = (
                viz.heat_map(maps[0], words, title=title) if len(maps) == 1 else viz.head_grid(maps, words, title=title)
            )
    return drawn | {"losses": loss_curves(config, results)}


def loss_curves(config: Config, results: Results) -> Figure:
    """Draw the loss of every run, on a logarithmic scale."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for colour, (name, trained) in zip(("#08519c", "#d94801"), results.trained.items(), strict=True):
        for i, curve in enumerate(trained.losses):
            axes.semilogy(np.arange(len(curve)), curve, color=colour, lw=1, label=None if i else name)
    axes.axhline(results.free_loss, color="#555555", lw=1, ls=":", label="no parameters")
    axes.set_xlabel("step of Adam")
    axes.set_ylabel("mean squared error")
    axes.set_title(f"Output against input, seeds {', '.join(map(str, config.seeds))}", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
