"""Command of the experiment: train, summarise, print, write results.json and the figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import command, seeds
from experiments.summarisation.drawing import draw
from experiments.summarisation.experiment import NEW, SMALL, Config, Results, run, score_summaries
from experiments.summarisation.texts import lead_summaries

HERE = Path(__file__).parent
SHOWN = 2
"""Number of reports that are printed and saved with their summaries."""


@dataclass(frozen=True)
class Options:
    """Let models summarise reports.

    Args:
        config: reports, sizes, training.
        small: shorter reports and training, where config is not changed.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    small: bool = False
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Train, write summaries, print, save."""
    config = command.chosen_config(options, SMALL)
    results = run(config)
    numbers = result_numbers(results)
    print_report(numbers)
    all_seeds = sorted({*config.recurrent.seeds, *config.transformer.seeds})
    return command.save(options, HERE, config, all_seeds, results, numbers, lambda: draw(results))


def result_numbers(results: Results) -> dict[str, Any]:
    """Scores of the summaries that need no model and of every model, set and seed, and the first summaries."""
    return {
        "leads": {
            which: {lead: score_summaries(texts, reports) for lead, texts in lead_summaries(reports).items()}
            for which, reports in results.reports.items()
        },
        "models": {
            name: {
                "parameters": model.parameters,
                "seconds_per_step": model.seconds,
                "last_loss": model.losses[:, -seeds.SMOOTH :].mean(1),
                "scores": {
                    which: scores_with_bands(texts, results.reports[which]) for which, texts in model.summaries.items()
                },
            }
            for name, model in results.models.items()
        },
        "summaries": [
            {
                "document": report.document,
                "summary": report.summary,
                **{name: model.summaries[NEW][0][i] for name, model in results.models.items()},
            }
            for i, report in enumerate(results.reports[NEW][:SHOWN])
        ],
    }


def scores_with_bands(texts: list[list[str]], reports: list[Any]) -> dict[str, Any]:
    """Every score with its band over seeds."""
    scores = [score_summaries(of_seed, reports) for of_seed in texts]
    return {name: seeds.with_band([of_seed[name] for of_seed in scores]) for name in scores[0]}


def print_report(numbers: dict[str, Any]) -> None:
    """Print everything but the curves."""
    for which, leads in numbers["leads"].items():
        for lead, scores in leads.items():
            rouge = ", ".join(f"{name} {scores[name]:.1f}" for name in ("rouge1", "rouge2", "rougeL"))
            print(f"{which}, {lead}: {rouge}")
    for name, model in numbers["models"].items():
        print(f"{name} ({model['parameters']:,} parameters, {1e3 * model['seconds_per_step']:.0f} ms a step)")
        for which, scores in model["scores"].items():
            for score, band in scores.items():
                print(f"    {which}, {score}: {seeds.format_band(band, 1 if score.startswith('rouge') else 3)}")
    for summaries in numbers["summaries"]:
        print("\n".join(f"    {name}: {text}" for name, text in summaries.items()))
