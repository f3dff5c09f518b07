"""The figures: right answers by model and set, losses, and what two answers look at."""

from __future__ import annotations

from matplotlib.figure import Figure

from experiments import seeds
from experiments.question_answering import LOOKS, Results, reading
from jax_attention import viz


def draw(found: Results) -> dict[str, Figure]:
    """Every figure by its file's name; a strip only if there is such an answer."""
    losses = {name: made.losses for name, made in found.answers.items()}
    drawn = {"right": right(found), "losses": seeds.curves(losses, "Every seed", "training loss, nats an answer")}
    if LOOKS not in found.answers:
        return drawn
    answers = found.answers[LOOKS].right["new passages"][0]
    for name, wanted in (("strip_right", True), ("strip_wrong", False)):
        if (answers == wanted).any():
            drawn[name] = strip(found, int((answers == wanted).argmax()), wanted)
    return drawn


def right(found: Results) -> Figure:
    """The mean over seeds of each model on each set, and guessing."""
    shares = {name: {which: x.mean(1) for which, x in made.right.items()} for name, made in found.answers.items()}
    figure = seeds.bars(shares, "share of right answers", "Answers; dotted: any value of the passage")
    axes = figure.axes[0]
    for place, chance in enumerate(found.chance.values()):
        axes.plot([place - 0.42, place + 0.42], [chance.guessed] * 2, color="black", lw=1.2, ls=":")
    axes.set_ylim(0, 1.02)
    return figure


def strip(found: Results, number: int, right: bool) -> Figure:
    """What one new passage's answer looks at, from the first seed."""
    passage = found.asked["new passages"][number]
    words = reading.source(passage).split(" ")
    weights = found.looked["new passages"][0].map[number : number + 1, : len(words)]
    outcome = "right" if right else "wrong"
    title = f"{LOOKS} attention of the step that answers ({outcome}); the answer is {passage.answer}"
    return viz.text_heatmap(weights, words, ["looks at"], title=title)
