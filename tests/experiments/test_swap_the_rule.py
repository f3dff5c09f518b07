"""One field of a small language model changed at a time: losses, entropies, speed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments import small_lm
from experiments.seed_training import TrainingConfig
from experiments.small_lm import Sizes
from experiments.swap_the_rule import Config
from experiments.swap_the_rule.drawing import draw
from experiments.swap_the_rule.report import Options, main
from experiments.swap_the_rule.variants import BASE, GROUPS, NAMES
from jax_attention import data
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import count_equal_parameters, quick_training

ROOT = Path(__file__).parents[2]
TEXT = "one two three four five six seven eight nine ten " * 200
"""Text in which a letter alone seldom decides the next one."""
SHORT = Config(
    sizes=Sizes(context=16, width=16, depth=1, heads=2),
    schooling=TrainingConfig(steps=150, batch_size=16, learning_rate=1e-2, seeds=(0, 1)),
    variants=(BASE, "sigmoid", "window 1"),
    held_out=64,
    rounds=2,
)
COMMITTED = json.loads((ROOT / "experiments" / "swap_the_rule" / "results.json").read_text(encoding="utf-8"))["numbers"]
ROWS = {name: row for name, row in COMMITTED.items() if isinstance(row, dict)}
TINY = dataclasses.replace(
    SHORT,
    sizes=dataclasses.replace(SHORT.sizes, context=8),  # as in test_length_extrapolation: one program for both
    schooling=TrainingConfig(steps=10, batch_size=4, learning_rate=1e-2, seeds=(0, 1)),
    variants=(BASE, "sigmoid"),
    held_out=8,
    rounds=1,
)


def run_command(config, out):
    text = out.parent / "count.txt"
    text.write_text(TEXT, encoding="utf-8")
    outcome = main(Options(config=config, text=text, out=out))
    return outcome.results, read_numbers(out, "losses.png", "speed_and_entropy.png")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Ten steps on a few rows, for properties that need no trained model."""
    with quick_training():
        return run_command(TINY, tmp_path_factory.mktemp("swap_the_rule"))


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return run_command(SHORT, tmp_path_factory.mktemp("swap_the_rule"))


def test_each_variant_changes_one_field_of_the_base():
    base = small_lm.base_config(Config().sizes)
    configs = Config().models()
    assert tuple(configs) == NAMES
    assert configs[BASE] == base
    for name, config in configs.items():
        fields = [f.name for f in dataclasses.fields(base) if getattr(base, f.name) != getattr(config, f.name)]
        assert len(fields) == (name != BASE), (name, fields)


def test_a_seed_gives_every_variant_the_same_batches_and_kernels():
    corpus, again = (small_lm.read_corpus(TINY.sizes, [data.Document("count", TEXT)]) for _ in range(2))
    assert (corpus.train.batch(1, 7, 4).tokens == again.train.batch(1, 7, 4).tokens).all()
    assert (corpus.train.batch(1, 7, 4).tokens != corpus.train.batch(2, 7, 4).tokens).any()
    configs = SHORT.models()
    for name in ("window 1", "sigmoid"):
        assert count_equal_parameters(configs[BASE], configs[name]) > 5000, name


@pytest.mark.slow
def test_training_lowers_the_loss_of_every_variant(trained_run):
    for name, variant in trained_run[0].variants.items():
        assert variant.first == pytest.approx(math.log(256), abs=0.5), name
        assert (variant.held_out < 0.65 * variant.first).all(), name


@pytest.mark.slow
def test_a_window_of_one_is_worse(trained_run):
    variants = trained_run[0].variants
    assert variants["window 1"].entropy.max() == 0
    assert (variants["window 1"].held_out > variants[BASE].held_out + 0.1).all()


def test_entropies_and_sums_are_those_of_the_rule(tiny_run):
    results = tiny_run[0]
    assert results.max_entropy == pytest.approx(np.log(np.arange(1, 9)).mean())
    assert 0 < results.variants[BASE].entropy.min() <= results.variants[BASE].entropy.max() < results.max_entropy
    np.testing.assert_allclose(results.variants[BASE].sums, 1, rtol=1e-5)
    assert np.abs(results.variants["sigmoid"].sums - 1).max() > 0.05


def test_differences_are_taken_seed_by_seed(tiny_run):
    results, numbers = tiny_run
    for name, row in ((name, numbers[name]) for name in TINY.variants):
        expected = results.variants[name].held_out - results.variants[BASE].held_out
        np.testing.assert_allclose(row["difference"], expected, atol=1e-5)
        assert row["difference_band"]["low"] <= np.mean(expected) + 1e-6
        assert row["speed"] > 0


def test_figures_name_every_variant(tiny_run):
    figures = draw(tiny_run[0])
    for figure in figures.values():
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(TINY.variants)
    assert "nats per byte" in figures["losses"].axes[0].get_xlabel()


def test_committed_results_are_complete():
    assert tuple(ROWS) == NAMES == tuple(name for names in GROUPS.values() for name in names)
    for name, row in ROWS.items():
        assert len(row["held_out_loss"]) >= 3
        assert np.allclose(row["first_loss"], math.log(256), atol=0.5), name
        assert 0 <= min(row["entropy"]) <= max(row["entropy"]) <= COMMITTED["max_entropy"] + 1e-3


def test_committed_results_hold_the_claims():
    worse = ("additive", "sigmoid", "relu", "uniform", "alibi", "t5", "learned", "sinusoidal", "none", "window 1")
    for name, row in ROWS.items():
        if name in worse:
            assert min(row["difference"]) > 0.04, name
        else:
            assert abs(row["difference_band"]["mean"]) < 0.03, name
    assert min(ROWS["sinusoidal"]["held_out_loss"]) > max(ROWS["window 1"]["held_out_loss"])
    assert ROWS["additive"]["speed"] < 0.7
