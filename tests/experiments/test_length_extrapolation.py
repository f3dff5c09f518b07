"""Reading beyond the trained length."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import length_extrapolation, small_lm
from experiments.learn import Schooling
from experiments.length_extrapolation import LONG, SCHEMES, Config, model_config, read_as, readings
from experiments.length_extrapolation.__main__ import Options, main, stretches
from experiments.length_extrapolation.drawing import draw
from experiments.small_lm import Sizes
from tests.experiments.folder import drawn, left_behind, small_programs
from tests.support.tolerances import FORWARD

ROOT = Path(__file__).parents[2]
TEXT = ROOT / "LICENSE"
LEARNS = Config(
    sizes=Sizes(context=8, width=16, depth=1, heads=2),
    schooling=Schooling(steps=150, batch_size=16, learning_rate=1e-2, seeds=(0, 1)),
    schemes=("rotary",),
    times=4,
    held_out=32,
)
COMMITTED = json.loads((ROOT / "experiments" / "length_extrapolation" / "results.json").read_text(encoding="utf-8"))
TINY = replace(LEARNS, schooling=replace(LEARNS.schooling, steps=10, batch_size=4))


def run_command(config, out):
    curves = []
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda config, text: curves.append(length_extrapolation.run(config, text)) or curves[0]  # noqa: E731
        patch.setattr("experiments.length_extrapolation.__main__.run", keep)
        main(Options(config=config, text=TEXT, out=out))
    return curves[0], left_behind(out, "schemes.png", "changes.png")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The curves and numbers of a few steps."""
    with small_programs():
        return run_command(TINY, tmp_path_factory.mktemp("length_extrapolation"))


def test_curves_have_every_position(made):
    curves, _ = made
    assert list(curves) == [*readings(TINY), LONG]
    for name, curve in curves.items():
        assert curve.shape == (2, 32), name


@pytest.mark.slow
def test_training_lowers_the_curves(tmp_path):
    curves, _ = run_command(LEARNS, tmp_path)
    for name, curve in curves.items():
        assert curve.mean() < 0.7 * np.log(256), name


def test_a_window_changes_nothing_up_to_its_length_and_something_beyond(made):
    curves, _ = made
    plain, window = curves["rotary"], curves["rotary, window"]
    np.testing.assert_allclose(window[:, :8], plain[:, :8], rtol=10 * FORWARD["float32"])
    assert np.abs(window[:, 8:] - plain[:, 8:]).max() > 1e-3


def test_scalings_change_what_is_read_within_the_trained_length(made):
    curves, _ = made
    for name in ("rotary, linear", "rotary, dynamic", "rotary, yarn"):
        assert np.abs(curves[name][:, 1:8] - curves["rotary"][:, 1:8]).max() > 1e-4, name


@pytest.mark.slow
def test_one_layer_with_a_window_reads_on_as_it_would_read_the_last_bytes_alone():
    tokens = np.random.default_rng(1).integers(256, size=32)
    model = read_as(drawn(model_config(TINY, "rotary")), context=32, windows=(8,))
    read = jax.jit(lambda model, tokens: model(tokens).logits[-1])
    whole, last = read(model, tokens), read(model, tokens[-8:])
    np.testing.assert_allclose(whole, last, atol=10 * FORWARD["float32"])


def test_learned_positions_end():
    model = drawn(model_config(TINY, "rotary").replace(position="learned"))
    with pytest.raises(ValueError, match="at most context = 8"):
        model(np.zeros(9, int))
    with pytest.raises(ValueError, match="position"):
        read_as(model, context=32)


def test_only_sinusoidal_embeddings_are_scaled():
    base = small_lm.base(TINY.sizes)
    assert model_config(TINY, "rotary") == base
    assert model_config(TINY, "sinusoidal") == base.replace(position="sinusoidal", scale_embedding=True)


def test_numbers_are_means_of_the_curves(made):
    curves, numbers = made
    assert list(stretches(TINY)) == ["4 to 7", "8 to 15", "16 to 31"]
    for name, curve in curves.items():
        np.testing.assert_allclose(numbers[name]["loss"]["16 to 31"], curve[:, 16:].mean(-1), rtol=1e-5)
        rise = curve[:, 16:].mean(-1) - curve[:, 4:8].mean(-1)
        np.testing.assert_allclose(numbers[name]["rise"], rise, atol=1e-4)


def test_figures_name_the_curves_and_mark_the_trained_length(made):
    for figure, names in zip(draw(TINY, made[0]).values(), (["rotary"], list(readings(TINY))[1:]), strict=True):
        (axes,) = figure.axes
        assert axes.get_legend_handles_labels()[1] == [*names, "trained length"]
        assert axes.get_xlabel() == "position"
        assert TINY.sizes.context in axes.get_xticks()


def test_committed_results_hold_the_claims():
    found = COMMITTED["numbers"]
    assert set(found) == {*readings(Config()), LONG} > set(SCHEMES)
    rises = {name: np.array(row["rise"]) for name, row in found.items()}
    assert all(len(rise) >= 3 for rise in rises.values())
    assert (np.abs(rises["alibi"]) < 0.05).all()
    assert (np.abs(rises["rotary, window"]) < 0.05).all()
    for name in ("rotary", "sinusoidal"):
        assert (rises[name] > 0.4).all(), name
    for name in ("t5", "none"):
        assert ((rises[name] > 0.1) & (rises[name] < 0.3)).all(), name
    losses = {name: np.array(row["loss"]["64 to 127"]) for name, row in found.items()}
    assert (losses["rotary"] < losses["alibi"]).all()  # up to twice the trained length rotary positions still lead
    assert (losses["sinusoidal"] > losses["none"] + 0.3).all()
