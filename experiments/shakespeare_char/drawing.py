"""The figure: validation loss by step."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.shakespeare_char.experiment import TARGET, Config

COLOURS = ("#08519c", "#d94801", "#238b45", "#6a51a3")


def draw(config: Config, losses: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Draw one line for each seed and position scheme, and nanoGPT's loss."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (position, curves), colour in zip(losses.items(), COLOURS, strict=False):
        for i, curve in enumerate(curves):
            steps = np.minimum(np.arange(1, len(curve) + 1) * config.evaluate_every, config.steps)
            axes.plot(steps, curve, color=colour, lw=1.2, marker="o", ms=2.5, label=None if i else position)
    axes.axhline(TARGET, color="#888888", lw=1, ls=":", label=f"nanoGPT's README, {TARGET}")
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss, nats a character")
    axes.set_title(f"Characters of a small Transformer, by positions, {len(config.seeds)} seeds", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return {"losses": figure}
