"""Train, ask, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments import record, seeds
from experiments.question_answering import LOOKS, SMALL, Config, Results, reading, run
from experiments.question_answering.drawing import draw

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Ask models about passages.

    Args:
        config: passages, sizes, training.
        small: shorter passages and training, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(found: Results) -> dict[str, Any]:
    """Shares of right answers, by how many were told of too, and where the answering step looked."""
    return {
        "chance": {which: chance._asdict() for which, chance in found.chance.items()},
        "answers": {
            name: {
                "parameters": made.parameters,
                "seconds_per_step": made.seconds,
                "last_loss": made.losses[:, -seeds.SMOOTH :].mean(1),
                "right": {which: seeds.banded(right.mean(1)) for which, right in made.right.items()},
                "right_by_people": by_people(found, name),
            }
            for name, made in found.answers.items()
        },
        "looks": {which: looks(found, which) for which in found.looked},
    }


def by_people(found: Results, name: str) -> dict[int, Any]:
    """Right answers about new passages by how many values the passage tells, one number for each seed."""
    counts = np.array([reading.choices(passage) for passage in found.asked["new passages"]])
    right = found.answers[name].right["new passages"]
    return {int(count): right[:, counts == count].mean(1) for count in np.unique(counts)}


def looks(found: Results, which: str) -> dict[str, Any]:
    """Shares over passages, one number for each seed."""
    looked, right = found.looked[which], found.answers[LOOKS].right[which]
    return {
        "most_at_answer": [one.most.mean() for one in looked],
        "most_at_answer_where_right": [
            one.most[some].mean() if some.any() else None for one, some in zip(looked, right, strict=True)
        ],
        "most_at_answer_where_wrong": [
            one.most[~some].mean() if (~some).any() else None for one, some in zip(looked, right, strict=True)
        ],
        "weight_at_answer": [one.at_answer.mean() for one in looked],
        "weight_in_sentence": [one.in_sentence.mean() for one in looked],
    }


def show(numbers: dict[str, Any]) -> None:
    """Print a table of right answers, and the looks."""
    for which, chance in numbers["chance"].items():
        print(f"{which}: the commonest answer {chance['commonest']:.3f}, any value of it {chance['guessed']:.3f}")
    for name, made in numbers["answers"].items():
        shares = ", ".join(f"{which} {seeds.said(share)}" for which, share in made["right"].items())
        print(f"{name} ({made['parameters']:,} parameters, {1e3 * made['seconds_per_step']:.0f} ms a step): {shares}")
        for count, share in made["right_by_people"].items():
            print(f"    {count} people, new passages: {', '.join(f'{x:.3f}' for x in share)}")
    for which, looks in numbers["looks"].items():
        print(f"{LOOKS} attention, {which}, by seed:")
        for name, shares in looks.items():
            written = ", ".join("none" if share is None else f"{share:.3f}" for share in shares)
            print(f"    {name.replace('_', ' ')}: {written}")


def main(given: Options) -> None:
    """Train, ask, print, write."""
    config = SMALL if given.small else given.config
    found = run(config)
    numbers = numbers_of(found)
    show(numbers)
    every = sorted({*config.recurrent.seeds, *config.transformer.seeds})
    record.keep(given, HERE, config, every, numbers, lambda: draw(found))


if __name__ == "__main__":
    main(tyro.cli(Options))
