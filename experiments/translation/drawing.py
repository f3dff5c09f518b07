"""The figures: quality by length, and attention maps."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from experiments import seeds
from experiments.translation.corpus import Corpus
from experiments.translation.experiment import Config, ModelResults
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
MAPPED = ("additive", "Transformer")


def draw(config: Config, corpus: Corpus, results: dict[str, ModelResults]) -> dict[str, Figure]:
    """Draw all figures, by the names of their files.

    Maps are those of the first seed, and of the layer that agrees best with the true alignment.
    """
    figures = {"bleu": bleu_curves(config, corpus, results)}
    for name in MAPPED:
        result = results.get(name)
        if result is None or result.maps is None:
            continue
        layer = best_layer(result)
        for number, (pair, maps) in enumerate(zip(corpus.shown, result.maps, strict=True), 1):
            title = name if maps.shape[1] == 1 else f"{name}, layer {layer + 1}"
            drawn = viz.alignment_map(
                maps[0, layer], pair.source.split(), pair.target.split(), title=title, values=None
            )
            figures[f"map_{number}_{name.lower()}"] = drawn
    return figures


def best_layer(result: ModelResults) -> int:
    """Layer with the largest agreement; the last layer if the true alignment is unknown."""
    return -1 if result.agreements is None else int(result.agreements.mean(axis=(0, 2)).argmax())


def bleu_curves(config: Config, corpus: Corpus, results: dict[str, ModelResults]) -> Figure:
    """Draw BLEU against the length of the source: means over seeds with bands, training lengths shaded."""
    panels = {title: names for title, names in PANELS.items() if results.keys() & set(names) - {"no attention"}}
    panels = panels or dict(list(PANELS.items())[:1])
    figure = Figure(figsize=(5.0 * len(panels) + 0.6, 4.6), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, names) in zip(grid, panels.items(), strict=True):
        _panel(axes, config, list(corpus.tests), {name: results[name] for name in names if name in results})
        axes.set_title(title, fontsize=10)
    grid[0].set_ylabel("BLEU, 0 to 100")
    count = len(next(iter(results.values())).bleu)
    figure.suptitle(f"Translation of new sentences; bands: {seeds.describe_bands(count)}", fontsize=11)
    return figure


def _panel(axes: Any, config: Config, lengths: list[int], results: dict[str, ModelResults]) -> None:
    axes.axvspan(*config.words, color="#eeeeee", lw=0)
    axes.text(config.words[1] - 0.1, 1, "training lengths", ha="right", va="bottom", fontsize=8, color="#555555")
    for name, result in results.items():
        band = seeds.band(result.bleu)
        axes.plot(lengths, band.mean, color=COLOURS.get(name), marker="o", ms=3, lw=1.5, label=name)
        axes.fill_between(lengths, band.low, band.high, color=COLOURS.get(name), alpha=0.2, lw=0)
    axes.set_ylim(0, 102)
    axes.set_xticks(lengths)
    axes.set_xlabel("words of the source")
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
