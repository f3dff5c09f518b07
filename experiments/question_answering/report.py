"""Command of the experiment: train, answer questions, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import command, seeds
from experiments.question_answering.drawing import draw
from experiments.question_answering.experiment import MAPPED, SMALL, Config, Results, run
from experiments.question_answering.texts import count_choices

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Ask models about passages.

    Args:
        config: passages, sizes, training.
        small: shorter passages and training, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, answer questions, print, write."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    numbers = result_numbers(results)
    print_report(numbers)
    all_seeds = sorted({*config.recurrent.seeds, *config.transformer.seeds})
    return command.save(options, HERE, config, all_seeds, results, numbers, lambda: draw(results))


def result_numbers(results: Results) -> dict[str, Any]:
    """Shares of right answers, also by the number of people, and measures of the maps."""
    return {
        "chance": {which: chance._asdict() for which, chance in results.chance.items()},
        "answers": {
            name: {
                "parameters": model.parameters,
                "seconds_per_step": model.seconds,
                "last_loss": model.losses[:, -seeds.SMOOTH :].mean(1),
                "right": {which: seeds.with_band(right.mean(1)) for which, right in model.right.items()},
                "right_by_people": right_by_people(results, name),
            }
            for name, model in results.models.items()
        },
        "maps": {which: map_numbers(results, which) for which in results.maps},
    }


def right_by_people(results: Results, name: str) -> dict[int, Any]:
    """Share of right answers about new passages by the number of people, one number for each seed."""
    counts = np.array([count_choices(passage) for passage in results.passages["new passages"]])
    right = results.models[name].right["new passages"]
    return {int(count): right[:, counts == count].mean(1) for count in np.unique(counts)}


def map_numbers(results: Results, which: str) -> dict[str, Any]:
    """Means over passages of the measures of the maps, one number for each seed."""
    maps, right = results.maps[which], results.models[MAPPED].right[which]
    return {
        "largest_at_answer": [of_seed.largest_at_answer.mean() for of_seed in maps],
        "largest_at_answer_where_right": [
            _mean_or_none(of_seed.largest_at_answer[is_right]) for of_seed, is_right in zip(maps, right, strict=True)
        ],
        "largest_at_answer_where_wrong": [
            _mean_or_none(of_seed.largest_at_answer[~is_right]) for of_seed, is_right in zip(maps, right, strict=True)
        ],
        "weight_at_answer": [of_seed.at_answer.mean() for of_seed in maps],
        "weight_in_sentence": [of_seed.in_sentence.mean() for of_seed in maps],
    }


def _mean_or_none(numbers: np.ndarray) -> Any:
    """Mean, or None for an empty array: its mean is NaN, which results.json cannot hold."""
    return numbers.mean() if numbers.size else None


def print_report(numbers: dict[str, Any]) -> None:
    """Print right answers and measures of the maps."""
    for which, chance in numbers["chance"].items():
        print(f"{which}: the commonest answer {chance['commonest']:.3f}, any value of it {chance['guessed']:.3f}")
    for name, model in numbers["answers"].items():
        shares = ", ".join(f"{which} {seeds.format_band(share)}" for which, share in model["right"].items())
        print(f"{name} ({model['parameters']:,} parameters, {1e3 * model['seconds_per_step']:.0f} ms a step): {shares}")
        for count, by_seed in model["right_by_people"].items():
            print(f"    {count} people, new passages: {', '.join(f'{x:.3f}' for x in by_seed)}")
    for which, measures in numbers["maps"].items():
        print(f"{MAPPED} attention, {which}, by seed:")
        for name, by_seed in measures.items():
            line = ", ".join("none" if share is None else f"{share:.3f}" for share in by_seed)
            print(f"    {name.replace('_', ' ')}: {line}")
