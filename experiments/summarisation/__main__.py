"""Train, write summaries, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from experiments import record, seeds
from experiments.summarisation import NEW, SMALL, Config, Results, run, scores, telling
from experiments.summarisation.drawing import draw

HERE = Path(__file__).parent
SHOWN = 2
"""So many reports are printed and kept with their summaries."""


@dataclass(frozen=True)
class Options:
    """Let models summarise reports.

    Args:
        config: reports, sizes, training.
        small: shorter reports and training, in place of config.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def numbers_of(found: Results) -> dict[str, Any]:
    """Scores of the sentences that need no model, of every model, set and seed, and the first summaries."""
    return {
        "leads": {
            which: {lead: scores(texts, some) for lead, texts in telling.leads(some).items()}
            for which, some in found.reports.items()
        },
        "models": {
            name: {
                "parameters": made.parameters,
                "seconds_per_step": made.seconds,
                "last_loss": made.losses[:, -seeds.SMOOTH :].mean(1),
                "scores": {which: by_seed(texts, found.reports[which]) for which, texts in made.written.items()},
            }
            for name, made in found.made.items()
        },
        "written": [
            {
                "document": report.document,
                "summary": report.summary,
                **{name: made.written[NEW][0][i] for name, made in found.made.items()},
            }
            for i, report in enumerate(found.reports[NEW][:SHOWN])
        ],
    }


def by_seed(texts: list[list[str]], reports: list[Any]) -> dict[str, Any]:
    """Every score with its band."""
    each = [scores(some, reports) for some in texts]
    return {score: seeds.banded([one[score] for one in each]) for score in each[0]}


def show(numbers: dict[str, Any]) -> None:
    """Print all but the curves."""
    for which, leads in numbers["leads"].items():
        for lead, found in leads.items():
            print(
                f"{which}, {lead}: " + ", ".join(f"{name} {found[name]:.1f}" for name in ("rouge1", "rouge2", "rougeL"))
            )
    for name, made in numbers["models"].items():
        print(f"{name} ({made['parameters']:,} parameters, {1e3 * made['seconds_per_step']:.0f} ms a step)")
        for which, found in made["scores"].items():
            for score, band in found.items():
                print(f"    {which}, {score}: {seeds.said(band, 1 if score.startswith('rouge') else 3)}")
    for shown in numbers["written"]:
        print("\n".join(f"    {name}: {text}" for name, text in shown.items()))


def main(given: Options) -> None:
    """Train, write, print."""
    config = SMALL if given.small else given.config
    found = run(config)
    numbers = numbers_of(found)
    show(numbers)
    every = sorted({*config.recurrent.seeds, *config.transformer.seeds})
    record.keep(given, HERE, config, every, numbers, lambda: draw(found))


if __name__ == "__main__":
    main(tyro.cli(Options))
