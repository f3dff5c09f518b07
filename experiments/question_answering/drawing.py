"""The figures: right answers by model and set, losses, and the weights of two answers."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import seeds
from experiments.question_answering.experiment import MAPPED, Results
from experiments.question_answering.texts import source_text
from jax_attention import viz


def draw(results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files; a right and a wrong answer only if there is one."""
    losses = {name: model.losses for name, model in results.models.items()}
    drawn = {
        "right": right_bars(results),
        "losses": seeds.curves(losses, "Every seed", "training loss, nats an answer"),
    }
    if MAPPED not in results.models:
        return drawn
    right = results.models[MAPPED].right["new passages"][0]
    for name, outcome in (("strip_right", True), ("strip_wrong", False)):
        if (right == outcome).any():
            drawn[name] = answer_heatmap(results, int((right == outcome).argmax()), outcome)
    return drawn


def right_bars(results: Results) -> Figure:
    """Draw the mean over seeds of each model on each set, and the accuracy of a guess."""
    shares = {name: {which: x.mean(1) for which, x in model.right.items()} for name, model in results.models.items()}
    figure = seeds.bars(shares, "share of right answers", "Answers; dotted: any value of the passage")
    axes = figure.axes[0]
    for position, chance in enumerate(results.chance.values()):
        axes.plot([position - 0.42, position + 0.42], [chance.guessed] * 2, color="black", lw=1.2, ls=":")
    axes.set_ylim(0, 1.02)
    return figure


def answer_heatmap(results: Results, number: int, right: bool) -> Figure:
    """Draw the weights of the answer about one new passage, from the first seed."""
    passage = results.passages["new passages"][number]
    words = source_text(passage).split(" ")
    weights = results.maps["new passages"][0].weights[number : number + 1, : len(words)]
    outcome = "right" if right else "wrong"
    title = f"{MAPPED} attention of the step that answers ({outcome}); the answer is {passage.answer}"
    return viz.text_heatmap(weights, words, ["looks at"], title=title)
