"""Train, print what 写 looks at, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments import record
from experiments.self_attention_zh import SMALL, WATCHED, Config, Results, run, watched
from jax_attention import viz

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Train self-attention to hand two Chinese sentences through.

    Args:
        config: sentences, sizes, training.
        small: a short training of two seeds, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(config: Config, found: Results) -> dict[str, Any]:
    """Losses and the watched weight, by layer and seed."""
    free = watched(config, found.free_weights[:, None])
    numbers: dict[str, Any] = {"no parameters": {"loss": found.free_loss, "watched": free}}
    for name, trained in found.trained.items():
        numbers[name] = {
            "first_loss": trained.losses[:, 0],
            "last_loss": trained.losses[:, -1],
            "falls": trained.falls,
            "watched_before": watched(config, trained.before),
            "watched_after": watched(config, trained.after),
            "most_looked_at_after": trained.after[:, 0].argmax(-1),
            "curve": trained.losses[:, :: max(config.steps // 30, 1)],
        }
    return numbers


def show(config: Config, found: Results) -> None:
    """Print one line for each layer, seed and head."""
    query, key = WATCHED
    free = watched(config, found.free_weights[:, None])
    print(f"no parameters: loss {found.free_loss:.2e}, {query} attends to {key} by {free[0]:.2e}")
    for name, trained in found.trained.items():
        before, after = watched(config, trained.before), watched(config, trained.after)
        for i, seed in enumerate(config.seeds):
            ends = (
                f"loss {trained.losses[i, 0]:.4f} -> {trained.losses[i, -1]:.2e}, {trained.falls[i]:,.0f} times smaller"
            )
            looks = ", ".join(f"{a:.3f} -> {b:.3f}" for a, b in zip(before[i], after[i], strict=True))
            print(f"{name}, seed {seed}: {ends}; {query} attends to {key}: {looks}")


def draw(config: Config, found: Results) -> dict[str, Figure]:
    """The maps of the first sentence from the first seed, before and after, and all losses."""
    words, seed = config.sentences[0], config.seeds[0]
    drawn = {"no_parameters": viz.heat_map(found.free_weights[0], words, title="softmax(X Xᵀ), no parameters")}
    for name, trained in found.trained.items():
        for when, maps in (("before", trained.before[0, 0]), ("after", trained.after[0, 0])):
            title = f"{name}, {when} training, seed {seed}"
            file = f"{name}_{when}".replace(" ", "_")
            drawn[file] = (
                viz.heat_map(maps[0], words, title=title) if len(maps) == 1 else viz.head_grid(maps, words, title=title)
            )
    return drawn | {"losses": losses(config, found)}


def losses(config: Config, found: Results) -> Figure:
    """Every run, on a logarithmic scale."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for colour, (name, trained) in zip(("#08519c", "#d94801"), found.trained.items(), strict=True):
        for i, curve in enumerate(trained.losses):
            axes.semilogy(np.arange(len(curve)), curve, color=colour, lw=1, label=None if i else name)
    axes.axhline(found.free_loss, color="#555555", lw=1, ls=":", label="no parameters")
    axes.set_xlabel("step of Adam")
    axes.set_ylabel("mean squared error")
    axes.set_title(f"Output against input, seeds {', '.join(map(str, config.seeds))}", fontsize=11)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main(given: Options) -> None:
    """Train, print, write."""
    config = SMALL if given.small else given.config
    found = run(config)
    show(config, found)
    record.keep(given, HERE, config, config.seeds, numbers_of(config, found), lambda: draw(config, found))


if __name__ == "__main__":
    main(tyro.cli(Options))
