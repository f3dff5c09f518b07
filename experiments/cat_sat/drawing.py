"""The figures: weights of the verb from every seed, and answers lost when a word is hidden."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.cat_sat.experiment import HIDDEN, Config, ModelResults
from experiments.cat_sat.sentences import MASK, SENTENCE, VERB
from jax_attention import viz

SENTENCES = {MASK: tuple(MASK if i == VERB else word for i, word in enumerate(SENTENCE)), "sat": SENTENCE}
"""The sentence with the verb to guess, and with the verb to read."""


def draw(config: Config, results: dict[str, list[ModelResults]]) -> dict[str, Figure]:
    """Draw all figures, by the names of their files."""
    maps = {name: weight_map(config, results["softmax"], i) for i, name in enumerate(("masked", "read"))}
    return maps | {"hidden": hiding_bars(results["softmax"])}


def weight_map(config: Config, models: list[ModelResults], which: int) -> Figure:
    """Draw the weights of the verb: a row for each head of each seed, and one for the mean of the heads."""
    verb = list(SENTENCES)[which]
    rows, names = [], []
    for seed, model in zip(config.schooling.seeds, models, strict=True):
        heads = model.weights[which]
        rows += [*heads, heads.mean(0)]
        names += [*(f"seed {seed}, head {n}" for n in range(len(heads))), f"seed {seed}, mean"]
    return viz.heat_map(np.stack(rows), names, SENTENCES[verb], title=f"What {verb} looks at (each row sums to 1)")


def hiding_bars(models: list[ModelResults]) -> Figure:
    """Draw two bars for each word: its weight, and the share of answers lost without it; a dot for each seed."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    weight = np.stack([model.weights[0].mean(0)[list(HIDDEN)] for model in models])
    lost = np.stack([model.right[0] - model.right[1:] for model in models])
    for shift, shares, colour, name in (
        (-0.2, weight, "#08519c", "weight that [mask] gives it, mean of the heads"),
        (0.2, lost, "#d94801", "held-out answers lost when it is hidden (share)"),
    ):
        positions = np.arange(len(HIDDEN)) + shift
        axes.bar(positions, shares.mean(0), 0.36, color=colour, alpha=0.6, label=name)
        for row in shares:
            axes.plot(positions, row, "o", color=colour, ms=3)
    axes.set_xticks(range(len(HIDDEN)), [SENTENCE[position] for position in HIDDEN])
    axes.set_ylim(0, 1.05)  # leaves room for the legend above the bars
    axes.set_ylabel("weight, and share lost")
    axes.set_title(f"What is looked at and what is needed, {len(models)} seeds", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="upper center")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
