"""The figures: what is right by model, losses, and what a summary looks at."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import seeds
from experiments.summarisation import ALIGNED, NEW, Results, scores, telling
from jax_attention import viz


def draw(found: Results) -> dict[str, Figure]:
    """Every figure by its file's name; an alignment only of the model that has one."""
    losses = {name: made.losses for name, made in found.made.items()}
    drawn = {"right": right(found), "losses": seeds.curves(losses, "Every seed")}
    if found.aligned is not None:
        weights, document, summary = found.aligned
        drawn["alignment"] = viz.alignment_map(weights, document, summary, title=f"{ALIGNED} attention, a new report")
    return drawn


def right(found: Results) -> Figure:
    """Shares of summaries of new reports that are right, wholly and in each part."""
    shares = {}
    for name, made in found.made.items():
        each = [scores(texts, found.reports[NEW]) for texts in made.written[NEW]]
        shares[name] = {part: [one[part] for one in each] for part in ("exact", *telling.KINDS)}
    figure = seeds.bars(
        shares, "share of summaries", "Summaries of new reports that are right: wholly, and in each part"
    )
    figure.set_size_inches(7.4, 3.4)
    figure.axes[0].set_ylim(0, 1.05)
    return figure
