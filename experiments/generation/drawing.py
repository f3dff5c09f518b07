"""The figures: shares of texts that pass each check, and the losses."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import seeds
from experiments.generation.checks import CHECKS
from experiments.generation.experiment import Results


def draw(results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files."""
    return {"checks": check_bars(results), "losses": loss_curves(results)}


def check_bars(results: Results) -> Figure:
    """Draw the share of texts that pass each check and all before it; the first check is of sentences."""
    shares = {
        name: {check: [getattr(checks, check).mean() for checks in model.checks] for check in ("sentences", *CHECKS)}
        for name, model in results.models.items()
    }
    figure = seeds.bars(shares, "share that passes", "Written texts that could be the generator's")
    axes = figure.axes[0]
    figure.set_size_inches(7.4, 3.4)
    axes.set_xticklabels(
        ["each sentence\npossible", "form", "all possible", "facts agree", "question\nabout text", "answers\nrightly"]
    )
    axes.set_ylim(0, 1.05)
    return figure


def loss_curves(results: Results) -> Figure:
    """Draw training losses, and as a line the loss of counts of pairs of words on new texts."""
    figure = seeds.curves({name: model.losses for name, model in results.models.items()}, "Every seed")
    axes = figure.axes[0]
    pairs = results.baselines["new texts"].bigram.nats_per_token
    axes.axhline(pairs, color="black", lw=1, ls="--", label="counts of pairs of words, new texts")
    axes.legend(fontsize=8, frameon=False)
    return figure
