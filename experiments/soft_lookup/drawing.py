"""The figure: weights of the picture without and with a query, and of the shop."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from experiments.soft_lookup.experiment import Lookups


def draw(results: Lookups) -> dict[str, Figure]:
    """Draw the figure, by the name of its file."""
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    picture, shop = figure.subplots(1, 2)
    for i, (label, weights) in enumerate(
        {"no query: saliency alone": results.without_query, 'query "living things"': results.living_things}.items()
    ):
        rows = [row + 0.4 * (i - 0.5) for row in range(len(weights))]
        _bars(picture, rows, weights, label=label, color=("#9ecae1", "#08519c")[i])
    picture.set_title("A picture", fontsize=11)
    picture.legend(fontsize=8, frameon=False, loc="lower right")
    _bars(shop, list(range(len(results.shop))), results.shop, color="#08519c")
    shop.set_title('A shop: "breathable running shoes", no heels', fontsize=10)
    for axes, names in ((picture, results.without_query), (shop, results.shop)):
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12)
        axes.set_xlabel("weight (a row sums to 1)", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return {"lookups": figure}


def _bars(axes: Any, rows: list[float], weights: dict[str, float], **style: Any) -> None:
    """Draw horizontal bars with their numbers."""
    drawn = axes.barh(rows, list(weights.values()), height=0.38, **style)
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
