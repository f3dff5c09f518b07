"""Train, print the weights of the verb as a table, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments import record
from experiments.cat_sat import EXCHANGED, HIDDEN, SMALL, Config, Looked, run
from experiments.cat_sat.drawing import WORDS, draw
from experiments.cat_sat.sentences import SENTENCE

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Train encoders to guess hidden words, and look at "the cat sat on the mat".

    Args:
        config: sizes, training.
        small: a short training of two seeds, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(found: dict[str, list[Looked]]) -> dict[str, Any]:
    """Everything measured, by kind, one entry for each seed."""
    numbers: dict[str, Any] = {"words": SENTENCE, "hidden": ["nothing", *(f"{SENTENCE[i]} ({i})" for i in HIDDEN)]}
    for name, models in found.items():
        numbers[name] = {
            "weights_masked": [model.weights[0] for model in models],
            "weights_read": [model.weights[1] for model in models],
            "mixed_masked": [model.mixed[0] for model in models],
            "mixed_read": [model.mixed[1] for model in models],
            "probability_of_sat": [model.sure for model in models],
            "right": [model.right for model in models],
            "instead": [model.instead for model in models],
        }
    return numbers


def show(config: Config, found: dict[str, list[Looked]]) -> None:
    """Print the weights, the mixed vectors, the answers and what hiding does."""
    for name, models in found.items():
        for i, (asked, words) in enumerate(WORDS.items()):
            print(f"\n{name}, weights of {asked:14}", *(f"{word:>7}" for word in words), "    sum   mixed vector")
            for seed, model in zip(config.schooling.seeds, models, strict=True):
                _weights(f"seed {seed}", model.weights[i], model.mixed[i])
        print(f"\n{name}, guessed held-out verbs; all words, then hidden:", *(SENTENCE[place] for place in HIDDEN))
        for seed, model in zip(config.schooling.seeds, models, strict=True):
            swaps = ", ".join(f"{new}: {verb}" for new, verb in zip(EXCHANGED.values(), model.instead, strict=True))
            print(f"  seed {seed}  ", *(f"{share:5.2f}" for share in model.right), f"   exchanged: {swaps}")


def _weights(name: str, heads: np.ndarray, mixed: np.ndarray) -> None:
    rows = {f"head {n}": row for n, row in enumerate(heads)} | {"mean": heads.mean(0)}
    for head, row in rows.items():
        written = f"  {name}, {head}".ljust(29), *(f"{weight:7.3f}" for weight in row), f"{row.sum():7.3f}"
        first = " ".join(f"{number:.2f}" for number in mixed[:4])
        print(*written, f"  ({first} ...), length {np.linalg.norm(mixed):.2f}" if head == "mean" else "")


def main(given: Options) -> None:
    """Train, print, write."""
    config = SMALL if given.small else given.config
    found = run(config)
    show(config, found)
    record.keep(given, HERE, config, config.schooling.seeds, numbers_of(found), lambda: draw(config, found))


if __name__ == "__main__":
    main(tyro.cli(Options))
