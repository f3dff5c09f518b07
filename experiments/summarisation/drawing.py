"""The figures: right summaries by model, losses, and the alignment of one summary."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import seeds
from experiments.summarisation.experiment import ALIGNED, NEW, Results, score_summaries
from experiments.summarisation.texts import PARTS
from jax_attention import viz


def draw(results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files; the alignment only if its model was trained."""
    losses = {name: model.losses for name, model in results.models.items()}
    drawn = {"right": right_bars(results), "losses": seeds.curves(losses, "Every seed")}
    if results.alignment is not None:
        weights, document, summary = results.alignment
        drawn["alignment"] = viz.alignment_map(weights, document, summary, title=f"{ALIGNED} attention, a new report")
    return drawn


def right_bars(results: Results) -> Figure:
    """Draw the shares of summaries of new reports that are right: the whole text, and each part of it."""
    shares = {}
    for name, model in results.models.items():
        scores = [score_summaries(texts, results.reports[NEW]) for texts in model.summaries[NEW]]
        shares[name] = {part: [of_seed[part] for of_seed in scores] for part in ("exact", *PARTS)}
    figure = seeds.bars(
        shares, "share of summaries", "Summaries of new reports that are right: wholly, and in each part"
    )
    figure.set_size_inches(7.4, 3.4)
    figure.axes[0].set_ylim(0, 1.05)
    return figure
