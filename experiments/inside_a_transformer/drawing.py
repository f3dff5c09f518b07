"""The figures: maps of the random model, gradients by depth, and Jacobian norms of every input."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments import figures
from experiments.inside_a_transformer.config import Config
from experiments.inside_a_transformer.experiment import Results
from jax_attention import viz

COLOURS = ("#08519c", "#6baed6", "#d94801")


def draw(config: Config, results: Results) -> dict[str, Figure]:
    """Draw all figures, by the names of their files."""
    words, norms = tuple(config.sentence), results.jacobian_norms
    axes = ("input s", "output t", "norm of d output / d input")
    return {
        "maps": viz.head_grid(results.full.weights, words, title="E6: a random model's attention, all heads"),
        "gradients": gradient_curves(config, results.gradients),
        "reach_masked": figures.word_matrix(norms.masked, words, "E5: causal mask", axes),
        "reach_unmasked": figures.word_matrix(norms.unmasked, words, "E5: no mask", axes),
    }


def gradient_curves(config: Config, gradients: dict[str, np.ndarray]) -> Figure:
    """Draw the median over seeds for each kind, and a band from the smallest to the largest norm."""
    figure = Figure(figsize=(6.6, 3.8), layout="constrained")
    axes = figure.subplots()
    layers = np.arange(config.deep.depth)
    for colour, (name, norms) in zip(COLOURS, gradients.items(), strict=True):
        axes.semilogy(layers, np.median(norms, axis=0), color=colour, label=name)
        axes.fill_between(layers, norms.min(axis=0), norms.max(axis=0), color=colour, alpha=0.2, lw=0)
    axes.set_xlabel(f"layer (0 is next to the input, {config.deep.depth - 1} to the output)")
    axes.set_ylabel("gradient norm of its parameters")
    axes.set_title(f"E4: {config.deep.depth} layers at initial parameters, {len(config.deep.seeds)} seeds", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
