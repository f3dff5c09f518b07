"""Command of the experiment: print the lookups, write results.json and the figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from experiments import command
from experiments.soft_lookup.drawing import draw
from experiments.soft_lookup.experiment import Config, Lookups, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Query a picture and a shop.

    Args:
        config: sharpness of the queries.
        out: folder for results.json and figures. By default the command without options overwrites the committed
            ones, and any other writes to .experiments/NAME.
    """

    config: Config = field(default_factory=Config)
    out: Path | None = None


def main(options: Options) -> command.Outcome:
    """Run, print, write."""
    results = run(options.config)
    print_report(results)
    return command.save(options, HERE, options.config, (), results, results._asdict(), lambda: draw(results))


def print_report(results: Lookups) -> None:
    """Print all weights."""
    print("A picture. Without a query: saliency / sum of saliencies")
    print(_table(results.without_query))
    print("Query 'living things'")
    print(_table(results.living_things))
    print("A shop. Query 'breathable running shoes', no heels")
    print(_table(results.shop))
    print(f"    expected price             {results.price:.2f}")


def _table(weights: dict[str, float]) -> str:
    """One line for each name, the largest weight first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    return "\n".join(f"    {name:<26} {weight:.4f}  {'#' * round(40 * weight)}" for name, weight in ordered)
