"""Train, print the losses, write results.json and the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments import record, seeds
from experiments.shakespeare_char import SMALL, TARGET, Config, read, run
from jax_attention import training

HERE = Path(__file__).parent
COLOURS = ("#08519c", "#d94801", "#238b45", "#6a51a3")


@dataclass(frozen=True)
class Options:
    """Train a small character model, by position scheme and seed.

    Args:
        text: tiny Shakespeare's input.txt, or any text.
        config: sizes, schemes, training.
        small: one seed and 150 steps, in place of config.
        out: where results.json and the figure go; if None, into .experiments.
    """

    text: Path
    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(text: Path, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """The last losses and their band, and all curves."""
    about = {"name": text.name, "bytes": text.stat().st_size}
    numbers: dict[str, Any] = {"text": about, "target": TARGET, "positions": {}}
    for position, curves in found.items():
        last = curves[:, -1]
        band = seeds.band(last)._asdict()
        numbers["positions"][position] = {"validation_loss": last, "band": band, "curves": curves}
    return numbers


def draw(config: Config, found: dict[str, np.ndarray]) -> Figure:
    """Validation loss by step, one line for each seed, and the loss to reach."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for (position, curves), colour in zip(found.items(), COLOURS, strict=False):
        for i, curve in enumerate(curves):
            steps = np.minimum(np.arange(1, len(curve) + 1) * config.evaluate_every, config.steps)
            axes.plot(steps, curve, color=colour, lw=1.2, marker="o", ms=2.5, label=None if i else position)
    axes.axhline(TARGET, color="#888888", lw=1, ls=":", label=f"nanoGPT's README, {TARGET}")
    axes.set_xlabel("step")
    axes.set_ylabel("validation loss, nats a character")
    axes.set_title(f"Characters of a small Transformer, by positions, {len(config.seeds)} seeds", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def main(given: Options) -> None:
    """Train, print, write."""
    training.keep_freed_memory()
    config = SMALL if given.small else given.config
    corpus = read(config, given.text)
    found = run(config, corpus)
    for position, curves in found.items():
        print(f"{position}: validation loss {', '.join(f'{loss:.4f}' for loss in curves[:, -1])}")
    print(f"nanoGPT's README: {TARGET}")
    record.keep(
        given, HERE, config, config.seeds, numbers_of(given.text, found), lambda: {"losses": draw(config, found)}
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
