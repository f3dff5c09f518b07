"""C2, answers: a model that attends finds the answer in the passage, at its place."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import corpora, learn, pair_models, question_answering
from experiments.corpora.passage_words import INSTRUMENTS, KINDS, NAMES
from experiments.question_answering import LOOKS, Config, looking, reading
from experiments.question_answering import __main__ as command
from tests.experiments.folder import commanded, left_behind, small_programs

NEW, PAIRS = "new passages", "new pairs"
LEARNS = Config(
    people=(3, 3),
    train=1000,
    test=100,
    models=("no attention", LOOKS),
    sizes=pair_models.Sizes(width=48),
    recurrent=learn.Schooling(steps=400, batch_size=32, learning_rate=1e-2, seeds=(0, 1)),
)
TINY = replace(
    LEARNS,
    train=100,
    test=8,
    models=(LOOKS,),
    sizes=pair_models.Sizes(width=8),
    recurrent=learn.Schooling(steps=2, batch_size=4, seeds=(0, 1)),
)


def run_command(config, folder):
    """In a smaller world: three of four people, with one way to tell what they play, and one to ask for it."""
    generator = importlib.import_module("experiments.corpora.passages")
    (plays,) = (kind for kind in KINDS if kind.values == INSTRUMENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "NAMES", NAMES[:4])
        one_form = plays._replace(statements=plays.statements[:1], questions=plays.questions[:1])
        for module in (generator, question_answering):
            patch.setattr(module, "KINDS", (one_form,))
        return commanded(command, config, folder)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Two steps on a few passages: all that holds before anything is learned."""
    with small_programs():
        return run_command(TINY, tmp_path_factory.mktemp("question_answering"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run_command(LEARNS, tmp_path_factory.mktemp("question_answering"))


def test_the_command_leaves_numbers_and_figures(untrained):
    outcomes = untrained.found.answers[LOOKS].right[NEW][0]
    strips = [f"strip_{name}.png" for name, wanted in (("right", True), ("wrong", False)) if (outcomes == wanted).any()]
    numbers = left_behind(untrained.folder, "losses.png", "right.png", *strips)
    assert tuple(numbers["answers"]) == TINY.models
    assert list(numbers["answers"][LOOKS]["right_by_people"]) == ["3"]


@pytest.mark.slow
def test_c2_a_model_that_attends_answers_from_the_passage(done):
    """Also where the pair of person and instrument is new, which the other has no way to learn by heart."""
    right = {name: made.right for name, made in done.found.answers.items()}
    for which in (NEW, PAIRS):
        without, attends = (right[name][which].mean(axis=1) for name in LEARNS.models)
        assert attends.min() > without.max() + 0.2, which
        assert attends.mean() > done.found.chance[which].guessed + 0.25, which
    assert right["no attention"][PAIRS].mean() < done.found.chance[PAIRS].guessed


@pytest.mark.slow
def test_c2_it_looks_at_the_answer(done):
    for one in done.found.looked[NEW]:
        assert one.most.mean() > 0.6


@pytest.mark.slow
def test_every_model_learns(done):
    for name, made in done.found.answers.items():
        assert made.losses[0, -10:].mean() < 0.75 * made.losses[0, 0], name


@pytest.mark.slow
def test_they_answer_more_than_the_commonest_answer(done):
    for name, made in done.found.answers.items():
        assert made.right[NEW].mean() > done.found.chance[NEW].commonest + 0.1, name


def test_maps_are_over_passage_and_question(untrained):
    found = untrained.found
    for which, (one, _) in found.looked.items():
        np.testing.assert_allclose(one.map.sum(-1), 1, rtol=1e-5)
        assert (one.at_answer <= one.in_sentence + 1e-6).all()
        for row, passage in zip(one.map, found.asked[which], strict=True):
            assert not row[len(reading.source(passage).split(" ")) :].any()


def test_strips_carry_the_words(untrained):
    figure = untrained.drawn.get("strip_wrong") or untrained.drawn["strip_right"]
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert {"?", "looks at"} <= drawn


def test_rows_answer_in_one_step():
    passages = corpora.passages(4, 30, people=(2, 3), kinds=1)
    words = reading.words(passages)
    rows = reading.rows(passages, words)
    assert rows["tokens"].shape == rows["targets"].shape == (30, 1)
    for row, target, passage in zip(rows["source"], rows["targets"], passages, strict=True):
        assert words.vocabulary[row[passage.place]] == words.vocabulary[target[0]] == passage.answer


def test_chance_is_that_of_the_values_told():
    passages = corpora.passages(4, 30, people=(3, 3), kinds=2)
    assert [reading.choices(passage) for passage in passages] == [3] * 30
    assert reading.chance(passages, passages).guessed == pytest.approx(1 / 3)


def test_the_sentence_of_an_answer():
    passage = corpora.Passage("Tom has a cat . Anna has a dog . Nina has a hen .", "?", "dog", 8)
    assert passage.text.split(" ")[looking.sentence(passage)] == ["Anna", "has", "a", "dog", "."]


def test_committed_results_hold_the_claims():
    path = Path(question_answering.__file__).parent / "results.json"
    numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for which in (NEW, PAIRS):
        without, attends = (numbers["answers"][name]["right"][which] for name in ("no attention", LOOKS))
        assert min(attends["by_seed"]) > max(without["by_seed"])
