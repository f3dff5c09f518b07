"""Command of the experiment: train, print the losses, write results.json and the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, seeds
from experiments.shakespeare_char.drawing import draw
from experiments.shakespeare_char.experiment import SMALL, TARGET, Config, read_corpus, run
from jax_attention import training

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Train a small character model, by position scheme and seed.

    Args:
        text: tiny Shakespeare's input.txt, or any text.
        config: sizes, schemes, training.
        small: one seed and 150 steps, where config is not changed.
        out: folder for results.json and the figure; .experiments/shakespeare_char if None.
    """

    text: Path
    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, print, write."""
    training.keep_freed_memory()
    config = command.chosen_config(options, SMALL)
    losses = run(config, read_corpus(config, options.text))
    for position, curves in losses.items():
        print(f"{position}: validation loss {', '.join(f'{loss:.4f}' for loss in curves[:, -1])}")
    print(f"nanoGPT's README: {TARGET}")
    numbers = result_numbers(options.text, losses)
    return command.save(options, HERE, config, config.seeds, losses, numbers, lambda: draw(config, losses))


def result_numbers(text: Path, losses: dict[str, np.ndarray]) -> dict[str, Any]:
    """Last losses with their band, and all curves, by position scheme."""
    numbers: dict[str, Any] = {
        "text": {"name": text.name, "bytes": text.stat().st_size},
        "target": TARGET,
        "positions": {},
    }
    for position, curves in losses.items():
        last = curves[:, -1]
        numbers["positions"][position] = {"validation_loss": last, "band": seeds.band_numbers(last), "curves": curves}
    return numbers
