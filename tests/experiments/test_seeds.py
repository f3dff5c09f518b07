"""Bands and bars over seeds, from one seed on; every command can be run with one."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import measure, seeds
from experiments.length_extrapolation import Config as Lengths
from experiments.length_extrapolation.__main__ import result_numbers as length_numbers
from experiments.long_range.__main__ import told
from experiments.long_range.recall import Found
from experiments.rules_side_by_side import drawing
from experiments.rules_side_by_side.tasks import Judged
from experiments.translation import Config, Measured
from experiments.translation.drawing import curves
from experiments.translation.sentences import of_grammar
from jax_attention import training


def test_a_band_is_that_of_the_library_from_two_seeds_on():
    values = np.random.default_rng(0).random((3, 4))
    for ours, theirs in zip(seeds.band(values), training.bootstrap(values), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    one = seeds.band(values[:1])
    for end in one:
        np.testing.assert_array_equal(end, values[0])
    assert seeds.format_band(seeds.with_band([0.5])) == "0.500 (0.500 to 0.500)"


@pytest.mark.parametrize("count", [1, 3])
def test_numbers_and_figures_of_any_number_of_seeds(count):
    shares = np.random.default_rng(0).random((count, 2))
    corpus = of_grammar(50, (3, 4), (3, 4), 2)
    one = Measured(7, np.ones((count, 30)), 100 * shares, shares, [""], None, None, measure.Cost(1.0, 2.0))
    (axes,) = curves(Config(), corpus, {"no attention": one}).axes
    assert axes.get_xlabel() == "words of the source"
    judged = Judged(shares[:, 0], shares[:, 0], None, None, shares[:, 0], None, np.arange(3))
    assert drawing.accuracy({"reverse": {"no attention": judged}}).axes[0].get_title() == "reverse"
    runs = told(Found(shares, shares, 7, shares[:, 0]))
    np.testing.assert_allclose(runs["bands"]["inside"]["mean"], shares.mean(axis=0))
    read = length_numbers(Lengths(), {"rotary": np.ones((count, Lengths().longest))})
    assert read["rotary"]["rise_band"]["mean"] == 0


def test_more_names_than_colours_have_bars():
    names = [f"model {i}" for i in range(len(seeds.COLOURS) + 2)]
    figure = seeds.bars({name: {"here": [0.1, 0.2]} for name in names}, "share", "all")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
