"""Command of the experiment: train, print the weights of the verb, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command
from experiments.cat_sat.drawing import SENTENCES, draw
from experiments.cat_sat.experiment import EXCHANGED, HIDDEN, SMALL, Config, ModelResults, run
from experiments.cat_sat.sentences import SENTENCE

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Train encoders to guess masked words, and measure "the cat sat on the mat".

    Args:
        config: sizes, training.
        small: a short training of two seeds, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, print, write."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    print_report(config, results)
    numbers = result_numbers(results)
    return command.save(options, HERE, config, config.schooling.seeds, results, numbers, lambda: draw(config, results))


def result_numbers(results: dict[str, list[ModelResults]]) -> dict[str, Any]:
    """All measurements by kind, one entry for each seed."""
    numbers: dict[str, Any] = {"words": SENTENCE, "hidden": ["nothing", *(f"{SENTENCE[i]} ({i})" for i in HIDDEN)]}
    for name, models in results.items():
        numbers[name] = {
            "weights_masked": [model.weights[0] for model in models],
            "weights_read": [model.weights[1] for model in models],
            "mixed_masked": [model.mixed[0] for model in models],
            "mixed_read": [model.mixed[1] for model in models],
            "probability_of_sat": [model.probability for model in models],
            "right": [model.right for model in models],
            "after_exchange": [model.after_exchange for model in models],
        }
    return numbers


def print_report(config: Config, results: dict[str, list[ModelResults]]) -> None:
    """Print the weights, the mixed vectors, and the guesses with hidden and exchanged words."""
    for name, models in results.items():
        for i, (verb, words) in enumerate(SENTENCES.items()):
            print(f"\n{name}, weights of {verb:14}", *(f"{word:>7}" for word in words), "    sum   mixed vector")
            for seed, model in zip(config.schooling.seeds, models, strict=True):
                _print_weights(f"seed {seed}", model.weights[i], model.mixed[i])
        print(
            f"\n{name}, guessed held-out verbs; all words, then hidden:", *(SENTENCE[position] for position in HIDDEN)
        )
        for seed, model in zip(config.schooling.seeds, models, strict=True):
            swaps = ", ".join(
                f"{new}: {verb}" for new, verb in zip(EXCHANGED.values(), model.after_exchange, strict=True)
            )
            print(f"  seed {seed}  ", *(f"{share:5.2f}" for share in model.right), f"   exchanged: {swaps}")


def _print_weights(name: str, heads: np.ndarray, mixed: np.ndarray) -> None:
    rows = {f"head {n}": row for n, row in enumerate(heads)} | {"mean": heads.mean(0)}
    for head, row in rows.items():
        written = f"  {name}, {head}".ljust(29), *(f"{weight:7.3f}" for weight in row), f"{row.sum():7.3f}"
        first = " ".join(f"{number:.2f}" for number in mixed[:4])
        print(*written, f"  ({first} ...), length {np.linalg.norm(mixed):.2f}" if head == "mean" else "")
