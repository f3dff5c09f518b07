"""The figures: quality by length, and who looks at which word."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from experiments import seeds
from experiments.translation import Config, Measured
from experiments.translation.sentences import Corpus
from jax_attention import viz

COLOURS = {
    "no attention": "#252525",
    "dot": "#08519c",
    "scaled dot": "#3182bd",
    "cosine": "#fc9272",
    "cosine, scale 10": "#de2d26",
    "cosine / sqrt(d)": "#969696",
    "general": "#6baed6",
    "additive": "#d94801",
    "additive, plain sum": "#fdae6b",
    "concat": "#969696",
    "location": "#54278f",
    "Transformer": "#238b45",
}
PANELS = {
    "what is attended to, and how": ("no attention", "dot", "general", "additive", "concat", "location", "Transformer"),
    "scale and sum": (
        "no attention",
        "dot",
        "scaled dot",
        "cosine",
        "cosine, scale 10",
        "cosine / sqrt(d)",
        "additive, plain sum",
    ),
}
DRAWN = ("additive", "Transformer")


def draw(config: Config, corpus: Corpus, found: dict[str, Measured]) -> dict[str, Figure]:
    """All figures by name; maps are of the first seed, and of the layer that agrees best with the true alignment."""
    figures = {"bleu": curves(config, corpus, found)}
    for name in DRAWN:
        one = found.get(name)
        if one is None or one.maps is None:
            continue
        layer = best_layer(one)
        for number, (pair, maps) in enumerate(zip(corpus.shown, one.maps, strict=True), 1):
            title = name if maps.shape[1] == 1 else f"{name}, layer {layer + 1}"
            drawn = viz.alignment_map(
                maps[0, layer], pair.source.split(), pair.target.split(), title=title, values=None
            )
            figures[f"map_{number}_{name.lower()}"] = drawn
    return figures


def best_layer(one: Measured) -> int:
    """The last, if nobody knows the true alignment."""
    return -1 if one.agreements is None else int(one.agreements.mean(axis=(0, 2)).argmax())


def curves(config: Config, corpus: Corpus, found: dict[str, Measured]) -> Figure:
    """BLEU against the length of the source: means over seeds, with bands, and a shade over the training lengths."""
    panels = {title: names for title, names in PANELS.items() if found.keys() & set(names) - {"no attention"}}
    panels = panels or dict(list(PANELS.items())[:1])
    figure = Figure(figsize=(5.0 * len(panels) + 0.6, 4.6), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(grid, panels.items(), strict=True):
        _panel(axes, config, list(corpus.tests), {name: found[name] for name in names if name in found})
        axes.set_title(title, fontsize=10)
    grid[0].set_ylabel("BLEU, 0 to 100")
    count = len(next(iter(found.values())).bleu)
    figure.suptitle(f"Translation of new sentences, {count} seeds, 95 % bands", fontsize=11)
    return figure


def _panel(axes: Any, config: Config, lengths: list[int], found: dict[str, Measured]) -> None:
    axes.axvspan(*config.words, color="#eeeeee", lw=0)
    axes.text(config.words[1] - 0.1, 1, "training lengths", ha="right", va="bottom", fontsize=8, color="#555555")
    for name, one in found.items():
        band = seeds.band(one.bleu)
        axes.plot(lengths, band.mean, color=COLOURS.get(name), marker="o", ms=3, lw=1.5, label=name)
        axes.fill_between(lengths, band.low, band.high, color=COLOURS.get(name), alpha=0.2, lw=0)
    axes.set_ylim(0, 102)
    axes.set_xticks(lengths)
    axes.set_xlabel("words of the source")
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
