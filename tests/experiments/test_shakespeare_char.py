"""nanoGPT's setting on characters: models learn, and the committed losses are those of its README."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.shakespeare_char.drawing import draw
from experiments.shakespeare_char.experiment import SMALL, TARGET, Config, read_corpus
from experiments.shakespeare_char.report import HERE, Options, main
from jax_attention import training
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training

SHORT = Config(
    context=16,
    batch_size=8,
    depth=1,
    num_heads=2,
    width=32,
    seeds=(0, 1),
    steps=50,
    evaluate_every=25,
    optimizer=training.OptimizerConfig(learning_rate=1e-2, warmup=5),
)
TINY = replace(
    SHORT,
    width=16,
    positions=("rotary",),
    seeds=(0,),
    steps=2,
    evaluate_every=1,
    optimizer=training.OptimizerConfig(learning_rate=1e-2, warmup=1),
)


def run_command(config, folder):
    text = folder / "text.txt"
    text.write_text("to be or not to be, that is the question.\n" * 60, encoding="utf-8")
    main(Options(text, config, out=folder / "out"))
    return text, read_numbers(folder / "out", "losses.png")


def test_the_command_writes_numbers_and_a_figure(tmp_path):
    """Two steps, for properties that need no trained model."""
    with quick_training():
        text, numbers = run_command(TINY, tmp_path)
    assert numbers["text"] == {"name": "text.txt", "bytes": text.stat().st_size}
    assert list(numbers["positions"]) == ["rotary"]
    for scheme in numbers["positions"].values():
        assert np.shape(scheme["curves"]) == (1, 2)
        assert scheme["validation_loss"] == [scheme["curves"][0][1]]
        assert scheme["band"] == {"n": 1, "mean": scheme["validation_loss"][0]}


@pytest.mark.slow
def test_every_scheme_learns_from_every_seed(tmp_path):
    text, numbers = run_command(SHORT, tmp_path)
    assert numbers["text"] == {"name": "text.txt", "bytes": text.stat().st_size}
    assert list(numbers["positions"]) == ["rotary", "learned"]
    chance = np.log(read_corpus(SHORT, text).tokenizer.vocab_size)
    for scheme in numbers["positions"].values():
        curves = np.array(scheme["curves"])
        assert curves.shape == (2, 2)
        assert (curves[:, 1] < curves[:, 0]).all()
        assert curves[:, 1].max() < 0.7 * chance
        assert scheme["validation_loss"] == curves[:, 1].tolist()
        assert scheme["band"]["low"] <= np.mean(curves[:, 1]) <= scheme["band"]["high"]
        assert len({*curves[:, 1]}) == 2, "seeds differ"


def test_the_setting_is_nanogpts():
    model = Config().model(65, "learned")
    assert (model.context, model.width, model.depth, model.num_heads, model.dropout) == (64, 128, 4, 4, 0.0)
    assert (Config().steps, Config().batch_size, SMALL.steps) == (2000, 12, 150)
    optimizer = Config().optimizer
    assert (optimizer.beta1, optimizer.beta2, optimizer.weight_decay, optimizer.clip) == (0.9, 0.99, 0.1, 1.0)


def test_committed_losses_hold_the_claim():
    numbers = json.loads((HERE / "results.json").read_text(encoding="utf-8"))["numbers"]
    rotary, learned = (np.array(numbers["positions"][name]["validation_loss"]) for name in ("rotary", "learned"))
    assert len(rotary) == len(learned) == 3
    assert rotary.max() < TARGET
    assert abs(learned - TARGET).max() < 0.04


def test_the_figure_is_labelled():
    losses = {"rotary": np.array([[3.0, 2.0]]), "learned": np.array([[3.0, 2.5]])}
    (axes,) = draw(SHORT, losses)["losses"].axes
    assert axes.get_ylabel() == "validation loss, nats a character"
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines["rotary"] == [25, 50]
    assert f"nanoGPT's README, {TARGET}" in lines
