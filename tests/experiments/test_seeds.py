"""Bands and bars over any number of seeds; every command can run with one."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import measure, seeds
from experiments.length_extrapolation import Config as LengthConfig
from experiments.length_extrapolation.report import result_numbers as length_numbers
from experiments.long_range.recall import RecallResults
from experiments.long_range.report import recall_numbers
from experiments.rules_side_by_side import drawing
from experiments.rules_side_by_side.tasks import TaskResults
from experiments.translation.corpus import grammar_corpus
from experiments.translation.drawing import bleu_curves
from experiments.translation.experiment import Config, ModelResults
from jax_attention import training


def test_a_band_is_that_of_the_library_from_two_seeds_on():
    values = np.random.default_rng(0).random((3, 4))
    for end, expected in zip(seeds.band(values), training.bootstrap(values), strict=True):
        np.testing.assert_array_equal(end, expected)
    for end in seeds.band(values[:1]):
        np.testing.assert_array_equal(end, values[0])
    assert seeds.format_band(seeds.with_band([0.5])) == "0.500 (0.500 to 0.500)"


@pytest.mark.parametrize("count", [1, 3])
def test_numbers_and_figures_of_any_number_of_seeds(count):
    shares = np.random.default_rng(0).random((count, 2))
    corpus = grammar_corpus(50, (3, 4), (3, 4), 2)
    result = ModelResults(7, np.ones((count, 30)), 100 * shares, shares, [""], None, None, measure.Cost(1.0, 2.0))
    (axes,) = bleu_curves(Config(), corpus, {"no attention": result}).axes
    assert axes.get_xlabel() == "words of the source"
    task_result = TaskResults(shares[:, 0], shares[:, 0], None, None, shares[:, 0], None, np.arange(3))
    assert drawing.accuracy_bars({"reverse": {"no attention": task_result}}).axes[0].get_title() == "reverse"
    recall = recall_numbers(RecallResults(shares, shares, 7, shares[:, 0]))
    np.testing.assert_allclose(recall["bands"]["inside"]["mean"], shares.mean(axis=0))
    by_length = length_numbers(LengthConfig(), {"rotary": np.ones((count, LengthConfig().longest))})
    assert by_length["rotary"]["rise_band"]["mean"] == 0


def test_more_names_than_colours_have_bars():
    names = [f"model {i}" for i in range(len(seeds.COLOURS) + 2)]
    figure = seeds.bars({name: {"here": [0.1, 0.2]} for name in names}, "share", "all")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
