"""C2, generation: attention predicts new texts better than counts of pairs, and writes more possible sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.generation import Config, checks, experiment, report
from experiments.generation.texts import generate_texts
from experiments.seed_training import TrainingConfig, count_parameters
from jax_attention import models
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import count_equal_parameters

ALONE, ATTENDS = experiment.WINDOWS
SHORT = Config(
    people=(2, 2),
    train=2000,
    test=60,
    samples=60,
    width=32,
    schooling=TrainingConfig(steps=120, batch_size=16, learning_rate=8e-3, seeds=(0,)),
)
TINY = replace(
    SHORT,
    depth=1,
    train=300,
    test=4,
    samples=20,
    schooling=TrainingConfig(steps=40, batch_size=16, learning_rate=8e-3, seeds=(0,)),
)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """A few steps of the model with attention: enough that it writes sentences, which the figure needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "WINDOWS", {ATTENDS: experiment.WINDOWS[ATTENDS]})
        return report.main(report.Options(TINY, out=tmp_path_factory.mktemp("generation")))


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return report.main(report.Options(SHORT, out=tmp_path_factory.mktemp("generation")))


def test_the_command_writes_numbers_and_figures(tiny_run):
    numbers = read_numbers(tiny_run.folder, "checks.png", "losses.png")
    assert list(numbers["models"]) == [ATTENDS]
    assert len(numbers["models"][ATTENDS]["texts"]) == report.SHOWN


@pytest.mark.slow
def test_c2_attention_predicts_better_than_pairs_and_words_alone_do(trained_run):
    results = trained_run.results
    for which, baseline in results.baselines.items():
        alone, attends = (results.models[name].held_out[which][0]["loss"] for name in (ALONE, ATTENDS))
        assert attends < baseline.bigram.nats_per_token < baseline.unigram.nats_per_token
        assert baseline.bigram.nats_per_token - 0.1 < alone  # a model of one word cannot beat counts of pairs
        assert attends < alone - 0.2


@pytest.mark.slow
def test_c2_attention_writes_more_sentences_that_the_generator_has(trained_run):
    alone, attends = (trained_run.results.models[name].checks[0].sentences.mean() for name in (ALONE, ATTENDS))
    assert attends > alone + 0.1


@pytest.mark.slow
def test_both_models_have_equally_many_parameters_and_equal_initial_values():
    sizes = [TINY.model(50, experiment.WINDOWS[name]) for name in (ALONE, ATTENDS)]
    shapes = [jax.eval_shape(partial(models.create, size), jax.random.key(0)) for size in sizes]
    assert count_parameters(shapes[0]) == count_parameters(shapes[1]) == count_equal_parameters(*sizes) > 1000


def test_figures_name_what_they_show(tiny_run):
    figures = tiny_run.figures
    assert [label.get_text() for label in figures["checks"].axes[0].get_xticklabels()][-1] == "answers\nrightly"
    assert [text.get_text() for text in figures["checks"].legends[0].get_texts()] == [ATTENDS]
    assert figures["losses"].axes[0].get_xlabel() == "step"


def test_texts_of_the_generator_pass_every_check():
    texts = generate_texts((2, 3), 5, 50)
    passed = checks.check_texts(texts, checks.TrainingSet(texts))
    for check in ("sentences", *checks.CHECKS):
        assert getattr(passed, check).all(), check
    assert not passed.unseen.any()
    assert not passed.new_pairs.any()


@pytest.mark.parametrize(
    ("text", "count"),
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
def test_each_check_finds_its_fault(text, count):
    assert checks.count_passed(text) == count
    passed = checks.check_texts([text], checks.TrainingSet([]))
    assert [bool(getattr(passed, check)[0]) for check in checks.CHECKS] == [n < count for n in range(5)]


def test_committed_results_hold_the_claims():
    path = Path(report.__file__).parent / "results.json"
    numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    alone, attends = (numbers["models"][name] for name in (ALONE, ATTENDS))
    for which, counts in numbers["counts"].items():
        pairs = counts["pairs of words"]["nats_per_token"]
        assert max(attends["held_out"][which]["nats_per_token"]["by_seed"]) < pairs - 0.2
        assert min(alone["held_out"][which]["nats_per_token"]["by_seed"]) > pairs - 0.05
    assert np.min(attends["checks"]["agreeing"]["by_seed"]) > np.max(alone["checks"]["agreeing"]["by_seed"]) + 0.3
    assert all(share == 1 for check, share in numbers["generator"].items() if check in ("sentences", *checks.CHECKS))
