"""Bands and bars over any number of seeds; every command can run with one."""

from __future__ import annotations

import json

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
from tests.house.sources import ROOT


def test_a_band_is_the_t_interval_and_one_seed_has_none():
    values = np.random.default_rng(0).random((3, 4))
    for end, expected in zip(seeds.band(values), training.t_interval(values), strict=True):
        np.testing.assert_array_equal(end, expected)
    mean, low, high = seeds.band(values[:1])
    np.testing.assert_array_equal(mean, values[0])
    assert np.isnan([low, high]).all()
    assert seeds.with_band([0.5]) == {"by_seed": [0.5], "n": 1, "mean": 0.5}
    assert seeds.format_band(seeds.with_band([0.5])) == "0.500 (one seed)"
    assert seeds.format_band(seeds.with_band([0.4, 0.6]), 2, "+") == "+0.50 \N{PLUS-MINUS SIGN} 1.27"


SEEDS_OF = (
    ("band", "held_out_loss"),
    ("band", "validation_loss"),
    ("band", "sequences"),
    ("difference_band", "difference"),
    ("rise_band", "rise"),
)
"""Key of a band in results.json, and key of its seeds next to it."""


def inner(numbers):
    values = numbers.values() if isinstance(numbers, dict) else numbers if isinstance(numbers, list) else ()
    return [x for x in values if isinstance(x, (dict, list))]


def bands(numbers):
    """Every band in results.json, after the numbers of its seeds."""
    if isinstance(numbers, dict):
        yield from ((numbers[seeds], numbers[band]) for band, seeds in SEEDS_OF if {band, seeds} <= numbers.keys())
        if "by_seed" in numbers:
            yield numbers["by_seed"], numbers
        if "rise" in numbers:
            yield from ((numbers["loss"][where], band) for where, band in numbers["band"].items())
        for part, band in numbers.get("bands", {}).items():
            yield numbers[part], band
    for x in inner(numbers):
        yield from bands(x)


def count_key(numbers, key: str) -> int:
    return int(isinstance(numbers, dict) and key in numbers) + sum(count_key(x, key) for x in inner(numbers))


BANDED = {
    "generation": 24,
    "length_extrapolation": 60,
    "long_range": 12,
    "question_answering": 9,
    "rules_side_by_side": 22,
    "shakespeare_char": 2,
    "summarisation": 54,
    "swap_the_rule": 40,
}
"""Number of committed bands, by experiment."""


@pytest.mark.parametrize("name", BANDED)
def test_committed_bands_are_t_intervals_of_the_committed_seeds(name):
    numbers = json.loads((ROOT / "experiments" / name / "results.json").read_text(encoding="utf-8"))["numbers"]
    pairs = list(bands(numbers))
    assert len(pairs) == BANDED[name] == count_key(numbers, "low"), "no band is left out"
    for by_seed, band in pairs:
        assert band["n"] == len(by_seed) == 3
        interval = training.t_interval(by_seed)
        for key, end in interval._asdict().items():
            # Six digits of each seed are stored, and the band was computed from all of them.
            np.testing.assert_allclose(band[key], end, rtol=0, atol=1e-5 * np.abs(by_seed).max() + 1e-12, err_msg=key)


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
