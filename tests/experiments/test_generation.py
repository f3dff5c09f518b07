"""C2, generation: attention predicts new texts better than pairs of words do, and what it writes holds together."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import generation, seed_training
from experiments.generation import Config, judging, texts
from experiments.generation import __main__ as command
from jax_attention import models
from tests.experiments.folder import commanded, left_behind, same_start

ALONE, ATTENDS = generation.WINDOWS
LEARNS = Config(
    people=(2, 2),
    train=2000,
    test=60,
    samples=60,
    width=32,
    schooling=seed_training.TrainingConfig(steps=120, batch_size=16, learning_rate=8e-3, seeds=(0,)),
)
TINY = replace(
    LEARNS,
    depth=1,
    train=300,
    test=4,
    samples=20,
    schooling=seed_training.TrainingConfig(steps=40, batch_size=16, learning_rate=8e-3, seeds=(0,)),
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A few steps of the model that attends: enough that it writes sentences, which the figure needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "WINDOWS", {ATTENDS: generation.WINDOWS[ATTENDS]})
        return commanded(command, TINY, tmp_path_factory.mktemp("generation"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return commanded(command, LEARNS, tmp_path_factory.mktemp("generation"))


def test_the_command_leaves_numbers_and_figures(untrained):
    numbers = left_behind(untrained.folder, "checks.png", "losses.png")
    assert list(numbers["models"]) == [ATTENDS]
    assert len(numbers["models"][ATTENDS]["written"]) == command.SHOWN


@pytest.mark.slow
def test_c2_attention_predicts_better_than_pairs_and_words_alone_do(done):
    found = done.found
    for which, counted in found.baselines.items():
        alone, attends = (found.made[name].held_out[which][0]["loss"] for name in (ALONE, ATTENDS))
        assert attends < counted.bigram.nats_per_token < counted.unigram.nats_per_token
        assert counted.bigram.nats_per_token - 0.1 < alone  # no model that sees one word can know more than pairs do
        assert attends < alone - 0.2


@pytest.mark.slow
def test_c2_attention_writes_more_sentences_that_the_generator_has(done):
    alone, attends = (done.found.made[name].judged[0].sentences.mean() for name in (ALONE, ATTENDS))
    assert attends > alone + 0.1


@pytest.mark.slow
def test_both_have_as_many_parameters_and_start_equally():
    sizes = [TINY.model(50, generation.WINDOWS[name]) for name in (ALONE, ATTENDS)]
    shapes = [jax.eval_shape(partial(models.create, size), jax.random.key(0)) for size in sizes]
    assert seed_training.count_parameters(shapes[0]) == seed_training.count_parameters(shapes[1]) == same_start(*sizes) > 1000


def test_figures_name_what_they_show(untrained):
    drawn = untrained.drawn
    assert [label.get_text() for label in drawn["checks"].axes[0].get_xticklabels()][-1] == "answers\nrightly"
    assert [text.get_text() for text in drawn["checks"].legends[0].get_texts()] == [ATTENDS]
    assert drawn["losses"].axes[0].get_xlabel() == "step"


def test_texts_of_the_generator_pass_every_check():
    told = texts.told((2, 3), 5, 50)
    judged = judging.judged(told, judging.Known(told))
    for check in ("sentences", *judging.CHECKS):
        assert getattr(judged, check).all(), check
    assert not judged.unseen.any()
    assert not judged.new_pairs.any()


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("Nina plays the oboe . Tom plays the viola . Which instrument does Tom play ? viola </s>", 5),
        ("Nina plays the oboe . Tom plays the viola . Which instrument does Tom play ? oboe </s>", 4),
        ("Nina plays the oboe . Tom plays the viola . Which instrument does Anna play ? oboe </s>", 3),
        ("Nina plays the oboe . Tom plays the oboe . Which instrument does Tom play ? oboe </s>", 2),
        ("Nina plays the oboe . Nina plays the viola . Which instrument does Nina play ? oboe </s>", 2),
        ("Nina plays the oboe . Tom lives in Rome . Which instrument does Nina play ? oboe </s>", 2),
        ("Nina plays the oboe . Which animal does Nina have ? oboe </s>", 2),
        ("Nina plays the Rome . Which instrument does Nina play ? Rome </s>", 1),
        ("Nina is a artist . What does Nina work as ? artist </s>", 1),
        ("Nina plays the oboe . Which instrument does Nina play ? oboe", 0),
        ("Nina plays the oboe . oboe </s>", 0),
    ],
)
def test_each_check_finds_its_fault(text, passed):
    assert judging.passes(text) == passed
    judged = judging.judged([text], judging.Known([]))
    assert [bool(getattr(judged, check)[0]) for check in judging.CHECKS] == [n < passed for n in range(5)]


def test_committed_results_hold_the_claims():
    path = Path(generation.__file__).parent / "results.json"
    numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    alone, attends = (numbers["models"][name] for name in (ALONE, ATTENDS))
    for which, counts in numbers["counts"].items():
        pairs = counts["pairs of words"]["nats_per_token"]
        assert max(attends["held_out"][which]["nats_per_token"]["by_seed"]) < pairs - 0.2
        assert min(alone["held_out"][which]["nats_per_token"]["by_seed"]) > pairs - 0.05
    assert np.min(attends["judged"]["agreeing"]["by_seed"]) > np.max(alone["judged"]["agreeing"]["by_seed"]) + 0.3
    assert all(share == 1 for check, share in numbers["own"].items() if check in ("sentences", *judging.CHECKS))
