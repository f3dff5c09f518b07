"""Print the lookups; write results.json and one figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from matplotlib.figure import Figure

from experiments import record
from experiments.soft_lookup import Config, Lookups, run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """Ask a picture and a shop.

    Args:
        config: how decided the queries are.
        out: where results.json and figures go; if None, the plain command writes here, any other into .experiments.
    """

    config: Config = field(default_factory=Config)
    out: Path | None = None


def table(weights: dict[str, float]) -> str:
    """One line for each name, the largest first."""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    return "\n".join(f"    {name:<26} {weight:.4f}  {'#' * round(40 * weight)}" for name, weight in ordered)


def show(found: Lookups) -> None:
    """Print all weights."""
    print("A picture. Without a query: saliency / sum of saliencies")
    print(table(found.unasked))
    print("Query 'living things'")
    print(table(found.living_things))
    print("A shop. Query 'breathable running shoes', no heels")
    print(table(found.shop))
    print(f"    expected price             {found.price:.2f}")


def draw(found: Lookups) -> Figure:
    """Weights of the picture without and with a query, and of the shop."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    picture, shop = figure.subplots(1, 2)
    for shift, (label, weights) in enumerate(
        {"no query: saliency alone": found.unasked, 'query "living things"': found.living_things}.items()
    ):
        places = [i + 0.4 * (shift - 0.5) for i in range(len(weights))]
        bars(picture, places, weights, label=label, color=("#9ecae1", "#08519c")[shift])
    picture.set_title("A picture", fontsize=11)
    picture.legend(fontsize=8, frameon=False, loc="lower right")
    bars(shop, list(range(len(found.shop))), found.shop, color="#08519c")
    shop.set_title('A shop: "breathable running shoes", no heels', fontsize=10)
    for axes, names in ((picture, found.unasked), (shop, found.shop)):
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12)
        axes.set_xlabel("weight (a row sums to 1)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def bars(axes: object, places: list[float], weights: dict[str, float], **look: object) -> None:
    """Horizontal bars with their numbers."""
    drawn = axes.barh(places, list(weights.values()), height=0.38, **look)
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)


def main(given: Options) -> None:
    """Look, print, write."""
    found = run(given.config)
    show(found)
    record.keep(given, HERE, given.config, (), found._asdict(), lambda: {"lookups": draw(found)})


if __name__ == "__main__":
    main(tyro.cli(Options))
