"""The figures: how many texts pass each check, and the losses."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import seeds
from experiments.generation import Results, judging


def draw(found: Results) -> dict[str, Figure]:
    """Every figure by its file's name."""
    return {"checks": checks(found), "losses": losses(found)}


def checks(found: Results) -> Figure:
    """Shares of written texts that pass each check and all before it; the first is of sentences."""
    shares = {
        name: {check: [getattr(one, check).mean() for one in made.judged] for check in ("sentences", *judging.CHECKS)}
        for name, made in found.made.items()
    }
    figure = seeds.bars(shares, "share that passes", "Written texts that could be the generator's")
    axes = figure.axes[0]
    figure.set_size_inches(7.4, 3.4)
    axes.set_xticklabels(
        ["each sentence\npossible", "form", "all possible", "facts agree", "asks of\none told", "answers\nrightly"]
    )
    axes.set_ylim(0, 1.05)
    return figure


def losses(found: Results) -> Figure:
    """Training losses, and as a line what counts of pairs of words reach on new texts."""
    figure = seeds.curves({name: made.losses for name, made in found.made.items()}, "Every seed")
    axes = figure.axes[0]
    pairs = found.baselines["new texts"].bigram.nats_per_token
    axes.axhline(pairs, color="black", lw=1, ls="--", label="counts of pairs of words, new texts")
    axes.legend(fontsize=8, frameon=False)
    return figure
