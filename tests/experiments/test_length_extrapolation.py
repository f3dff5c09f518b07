"""Language models beyond the trained length: curves by position, scalings, windows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import small_lm
from experiments.length_extrapolation.drawing import draw
from experiments.length_extrapolation.experiment import (
    LONG,
    SCHEMES,
    Config,
    evaluations,
    model_config,
    with_config_changes,
)
from experiments.length_extrapolation.report import Options, main, position_ranges
from experiments.seed_training import TrainingConfig
from experiments.small_lm import Sizes
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import numpy_model, quick_training
from tests.support.tolerances import FORWARD

ROOT = Path(__file__).parents[2]
TEXT = ROOT / "LICENSE"
SHORT = Config(
    sizes=Sizes(context=8, width=16, depth=1, heads=2),
    schooling=TrainingConfig(steps=150, batch_size=16, learning_rate=1e-2, seeds=(0, 1)),
    schemes=("rotary",),
    times=4,
    held_out=32,
)
COMMITTED = json.loads((ROOT / "experiments" / "length_extrapolation" / "results.json").read_text(encoding="utf-8"))
TINY = replace(SHORT, schooling=replace(SHORT.schooling, steps=10, batch_size=4))


def run_command(config, out):
    outcome = main(Options(config=config, text=TEXT, out=out))
    return outcome.results, read_numbers(out, "schemes.png", "changes.png")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Curves and numbers of a few steps."""
    with quick_training():
        return run_command(TINY, tmp_path_factory.mktemp("length_extrapolation"))


def test_curves_have_every_position(tiny_run):
    curves, _ = tiny_run
    assert list(curves) == [*evaluations(TINY), LONG]
    for name, curve in curves.items():
        assert curve.shape == (2, 32), name


@pytest.mark.slow
def test_training_lowers_the_curves(tmp_path):
    curves, _ = run_command(SHORT, tmp_path)
    for name, curve in curves.items():
        assert curve.mean() < 0.7 * np.log(256), name


def test_a_window_changes_losses_only_beyond_its_length(tiny_run):
    curves, _ = tiny_run
    plain, window = curves["rotary"], curves["rotary, window"]
    np.testing.assert_allclose(window[:, :8], plain[:, :8], rtol=10 * FORWARD["float32"])
    assert np.abs(window[:, 8:] - plain[:, 8:]).max() > 1e-3


def test_scalings_change_losses_within_the_trained_length(tiny_run):
    curves, _ = tiny_run
    for name in ("rotary, linear", "rotary, dynamic", "rotary, yarn"):
        assert np.abs(curves[name][:, 1:8] - curves["rotary"][:, 1:8]).max() > 1e-4, name


@pytest.mark.slow
def test_one_layer_with_a_window_depends_on_the_last_bytes_only():
    tokens = np.random.default_rng(1).integers(256, size=32)
    model = with_config_changes(numpy_model(model_config(TINY, "rotary")), context=32, windows=(8,))
    last_logits = jax.jit(lambda model, tokens: model(tokens).logits[-1])
    whole, last = last_logits(model, tokens), last_logits(model, tokens[-8:])
    np.testing.assert_allclose(whole, last, atol=10 * FORWARD["float32"])


def test_learned_positions_end_at_the_trained_length():
    model = numpy_model(model_config(TINY, "rotary").replace(position="learned"))
    with pytest.raises(ValueError, match="at most context = 8"):
        model(np.zeros(9, int))
    with pytest.raises(ValueError, match="position"):
        with_config_changes(model, context=32)


def test_only_sinusoidal_embeddings_are_scaled():
    base = small_lm.base_config(TINY.sizes)
    assert model_config(TINY, "rotary") == base
    assert model_config(TINY, "sinusoidal") == base.replace(position="sinusoidal", scale_embedding=True)


def test_numbers_are_means_of_the_curves(tiny_run):
    curves, numbers = tiny_run
    assert list(position_ranges(TINY)) == ["4 to 7", "8 to 15", "16 to 31"]
    for name, curve in curves.items():
        np.testing.assert_allclose(numbers[name]["loss"]["16 to 31"], curve[:, 16:].mean(-1), rtol=1e-5)
        rise = curve[:, 16:].mean(-1) - curve[:, 4:8].mean(-1)
        np.testing.assert_allclose(numbers[name]["rise"], rise, atol=1e-4)


def test_figures_name_the_curves_and_mark_the_trained_length(tiny_run):
    for figure, names in zip(draw(TINY, tiny_run[0]).values(), (["rotary"], list(evaluations(TINY))[1:]), strict=True):
        (axes,) = figure.axes
        assert axes.get_legend_handles_labels()[1] == [*names, "trained length"]
        assert axes.get_xlabel() == "position"
        assert TINY.sizes.context in axes.get_xticks()


def test_bands_count_the_seeds_of_both_sides(tiny_run):
    """Only the model of long rows differs between seeds, by 1: half of the interval of two seeds is 12.7 / 2."""
    curves = {name: np.zeros_like(curve) for name, curve in tiny_run[0].items()}
    curves[LONG] += [[0.0], [1.0]]
    (axes,) = draw(TINY, curves)["schemes"].axes
    extents = axes.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose([extents.y0, extents.y1], [-0.5 - 6.353, -0.5 + 6.353], atol=1e-3)


def test_committed_results_hold_the_claims():
    numbers = COMMITTED["numbers"]
    assert set(numbers) == {*evaluations(Config()), LONG} > set(SCHEMES)
    rises = {name: np.array(row["rise"]) for name, row in numbers.items()}
    assert all(len(rise) >= 3 for rise in rises.values())
    assert (np.abs(rises["alibi"]) < 0.05).all()
    assert (np.abs(rises["rotary, window"]) < 0.05).all()
    for name in ("rotary", "sinusoidal"):
        assert (rises[name] > 0.4).all(), name
    for name in ("t5", "none"):
        assert ((rises[name] > 0.1) & (rises[name] < 0.3)).all(), name
    losses = {name: np.array(row["loss"]["64 to 127"]) for name, row in numbers.items()}
    assert (losses["rotary"] < losses["alibi"]).all()  # up to twice the trained length rotary positions are still best
    assert (losses["sinusoidal"] > losses["none"] + 0.3).all()
