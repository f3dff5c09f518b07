"""The figures: what the verb looks at from every seed, and what it costs to hide a word."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.cat_sat import HIDDEN, Config, Looked
from experiments.cat_sat.sentences import MASK, SENTENCE, VERB
from jax_attention import viz

WORDS = {MASK: tuple(MASK if i == VERB else word for i, word in enumerate(SENTENCE)), "sat": SENTENCE}
"""The sentence as it is given when the verb is guessed, and when it is read."""


def draw(config: Config, found: dict[str, list[Looked]]) -> dict[str, Figure]:
    """Both maps, and the bars."""
    drawn = {name: weights(config, found["softmax"], i) for i, name in enumerate(("masked", "read"))}
    return drawn | {"hidden": hidden(found["softmax"])}


def weights(config: Config, models: list[Looked], which: int) -> Figure:
    """A row for each head of each seed, and one for their mean."""
    asked = list(WORDS)[which]
    rows, names = [], []
    for seed, model in zip(config.schooling.seeds, models, strict=True):
        heads = model.weights[which]
        rows += [*heads, heads.mean(0)]
        names += [*(f"seed {seed}, head {n}" for n in range(len(heads))), f"seed {seed}, mean"]
    return viz.heat_map(np.stack(rows), names, WORDS[asked], title=f"What {asked} looks at (each row sums to 1)")


def hidden(models: list[Looked]) -> Figure:
    """Beside each other for every word: its weight, and how many answers are lost without it; a dot for each seed."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    weight = np.stack([model.weights[0].mean(0)[list(HIDDEN)] for model in models])
    lost = np.stack([model.right[0] - model.right[1:] for model in models])
    for shift, values, colour, name in (
        (-0.2, weight, "#08519c", "weight that [mask] gives it, mean of the heads"),
        (0.2, lost, "#d94801", "held-out answers lost when it is hidden (share)"),
    ):
        places = np.arange(len(HIDDEN)) + shift
        axes.bar(places, values.mean(0), 0.36, color=colour, alpha=0.6, label=name)
        for row in values:
            axes.plot(places, row, "o", color=colour, ms=3)
    axes.set_xticks(range(len(HIDDEN)), [SENTENCE[place] for place in HIDDEN])
    axes.set_ylim(0, 1.05)  # the legend stands above the bars
    axes.set_ylabel("weight, and share lost")
    axes.set_title(f"What is looked at and what is needed, {len(models)} seeds", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="upper center")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
