"""C2, answers: a model with attention finds the answer in the passage, and its position."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import corpora
from experiments.corpora.passage_words import INSTRUMENTS, KINDS, NAMES
from experiments.question_answering import Config, experiment, report, texts
from experiments.question_answering.answer_maps import answer_sentence
from experiments.question_answering.experiment import MAPPED
from experiments.seed_training import TrainingConfig
from experiments.seq2seq_models import Sizes
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training

NEW, PAIRS = "new passages", "new pairs"
SHORT = Config(
    people=(3, 3),
    train=1000,
    test=100,
    models=("no attention", MAPPED),
    sizes=Sizes(width=48),
    recurrent=TrainingConfig(steps=400, batch_size=32, learning_rate=1e-2, seeds=(0, 1)),
)
TINY = replace(
    SHORT,
    train=100,
    test=8,
    models=(MAPPED,),
    sizes=Sizes(width=8),
    recurrent=TrainingConfig(steps=2, batch_size=4, seeds=(0, 1)),
)


def run_command(config, folder):
    """Run with fewer sentences: three of four people, one form of statement about instruments, one form of question."""
    generator = importlib.import_module("experiments.corpora.passages")
    (plays,) = (kind for kind in KINDS if kind.values == INSTRUMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "NAMES", NAMES[:4])
        for module in (generator, experiment):
            patch.setattr(
                module, "KINDS", (plays._replace(statements=plays.statements[:1], questions=plays.questions[:1]),)
            )
        return report.main(report.Options(config, out=folder))


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Two steps on a few passages, for properties that need no trained model."""
    with quick_training():
        return run_command(TINY, tmp_path_factory.mktemp("question_answering"))


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return run_command(SHORT, tmp_path_factory.mktemp("question_answering"))


def test_the_command_writes_numbers_and_figures(tiny_run):
    right = tiny_run.results.models[MAPPED].right[NEW][0]
    strips = [f"strip_{name}.png" for name, outcome in (("right", True), ("wrong", False)) if (right == outcome).any()]
    numbers = read_numbers(tiny_run.folder, "losses.png", "right.png", *strips)
    assert tuple(numbers["answers"]) == TINY.models
    assert list(numbers["answers"][MAPPED]["right_by_people"]) == ["3"]


@pytest.mark.slow
def test_c2_a_model_with_attention_answers_from_the_passage(trained_run):
    """Also for new pairs of person and instrument, which the model without attention cannot memorise."""
    right = {name: model.right for name, model in trained_run.results.models.items()}
    for which in (NEW, PAIRS):
        without, attends = (right[name][which].mean(axis=1) for name in SHORT.models)
        assert attends.min() > without.max() + 0.2, which
        assert attends.mean() > trained_run.results.chance[which].guessed + 0.25, which
    assert right["no attention"][PAIRS].mean() < trained_run.results.chance[PAIRS].guessed


@pytest.mark.slow
def test_c2_it_looks_at_the_answer(trained_run):
    for maps in trained_run.results.maps[NEW]:
        assert maps.largest_at_answer.mean() > 0.6


@pytest.mark.slow
def test_every_model_learns(trained_run):
    for name, model in trained_run.results.models.items():
        assert model.losses[0, -10:].mean() < 0.75 * model.losses[0, 0], name


@pytest.mark.slow
def test_they_answer_more_than_the_commonest_answer(trained_run):
    for name, model in trained_run.results.models.items():
        assert model.right[NEW].mean() > trained_run.results.chance[NEW].commonest + 0.1, name


def test_maps_are_over_passage_and_question(tiny_run):
    results = tiny_run.results
    for which, (maps, _) in results.maps.items():
        np.testing.assert_allclose(maps.weights.sum(-1), 1, rtol=1e-5)
        assert (maps.at_answer <= maps.in_sentence + 1e-6).all()
        for row, passage in zip(maps.weights, results.passages[which], strict=True):
            assert not row[len(texts.source_text(passage).split(" ")) :].any()


def test_strips_carry_the_words(tiny_run):
    figure = tiny_run.figures.get("strip_wrong") or tiny_run.figures["strip_right"]
    written = {text.get_text() for text in figure.axes[0].texts}
    assert {"?", "looks at"} <= written


def test_rows_answer_in_one_step():
    passages = corpora.passages(4, 30, people=(2, 3), kinds=1)
    words = texts.word_tokenizer(passages)
    rows = texts.make_rows(passages, words)
    assert rows["tokens"].shape == rows["targets"].shape == (30, 1)
    for row, target, passage in zip(rows["source"], rows["targets"], passages, strict=True):
        assert words.vocabulary[row[passage.place]] == words.vocabulary[target[0]] == passage.answer


def test_chance_depends_on_the_number_of_values():
    passages = corpora.passages(4, 30, people=(3, 3), kinds=2)
    assert [texts.count_choices(passage) for passage in passages] == [3] * 30
    assert texts.chance(passages, passages).guessed == pytest.approx(1 / 3)


def test_the_sentence_of_an_answer():
    passage = corpora.Passage("Tom has a cat . Anna has a dog . Nina has a hen .", "?", "dog", 8)
    assert passage.text.split(" ")[answer_sentence(passage)] == ["Anna", "has", "a", "dog", "."]


def test_committed_results_hold_the_claims():
    path = Path(report.__file__).parent / "results.json"
    numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for which in (NEW, PAIRS):
        without, attends = (numbers["answers"][name]["right"][which] for name in ("no attention", MAPPED))
        assert min(attends["by_seed"]) > max(without["by_seed"])
