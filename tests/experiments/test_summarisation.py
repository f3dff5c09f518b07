"""C2, summaries: a model that attends writes better ones than the same model with one code for the whole report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import corpora, learn, pair_models, summarisation
from experiments.summarisation import ALIGNED, NEW, Config, scores, telling
from experiments.summarisation import __main__ as command
from tests.experiments.folder import commanded, left_behind, small_programs

LEARNS = Config(
    facts=(1, 1),
    fillers=(0, 0),
    train=2000,
    test=16,
    multiple=40,
    models=("no attention", ALIGNED),
    sizes=pair_models.Sizes(width=32),
    recurrent=learn.Schooling(steps=200, batch_size=16, learning_rate=1e-2, seeds=(0,)),
)
TINY = replace(
    LEARNS,
    train=200,
    test=4,
    models=(ALIGNED,),
    sizes=pair_models.Sizes(width=8),
    recurrent=learn.Schooling(steps=2, batch_size=4, seeds=(0,)),
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Two steps on a few reports: all that holds before anything is learned."""
    with small_programs():
        return commanded(command, TINY, tmp_path_factory.mktemp("summarisation"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return commanded(command, LEARNS, tmp_path_factory.mktemp("summarisation"))


def test_the_command_leaves_numbers_and_figures(untrained):
    numbers = left_behind(untrained.folder, "alignment.png", "losses.png", "right.png")
    assert tuple(numbers["models"]) == TINY.models
    assert len(numbers["written"]) == command.SHOWN


@pytest.mark.slow
def test_c2_attention_predicts_and_writes_better(done):
    without, attends = (done.found.made[name] for name in LEARNS.models)
    assert without.losses[0, -20:].mean() < 0.5 * without.losses[0, 0]
    assert attends.losses[0, -20:].mean() < without.losses[0, -20:].mean() - 0.05
    for which, wanted in done.found.reports.items():
        found = [scores(made.written[which][0], wanted)["rouge2"] for made in (without, attends)]
        assert found[1] > found[0] + 5, which


def test_the_map_is_over_the_words_of_document_and_summary(untrained):
    aligned = untrained.found.aligned
    assert aligned.weights.shape == (len(aligned.summary), len(aligned.document))
    np.testing.assert_allclose(aligned.weights.sum(-1), 1, rtol=1e-5)
    axes = untrained.drawn["alignment"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == aligned.document
    assert [label.get_text() for label in axes.get_yticklabels()] == aligned.summary


def test_figures_name_what_they_show(untrained):
    drawn = untrained.drawn
    assert [text.get_text() for text in drawn["right"].legends[0].get_texts()] == list(TINY.models)
    assert [label.get_text() for label in drawn["right"].axes[0].get_xticklabels()] == ["exact", *telling.KINDS]


def test_scores_of_right_and_wrong_summaries():
    reports = corpora.reports(0, 40)
    right = scores([report.summary for report in reports], reports)
    assert {name: round(score) for name, score in right.items() if name.startswith("rouge")} == {
        "rouge1": 100,
        "rouge2": 100,
        "rougeL": 100,
    }
    assert all(right[name] == 1 for name in ("exact", *telling.KINDS))
    one = corpora.Report("", "A storm hit Rome on Monday . It blocked two roads and closed three schools .")
    wrong = scores(["A storm hit Oslo on Monday . It blocked three roads and closed two schools ."], [one])
    assert [wrong[name] for name in ("exact", *telling.KINDS)] == [0, 1, 0, 1, 0, 1]


def test_first_sentences_are_poor_summaries():
    reports = corpora.reports(0, 100)
    leads = {name: scores(texts, reports)["rouge2"] for name, texts in telling.leads(reports).items()}
    assert list(leads) == ["the first sentence", "the first three", "all"]
    assert max(leads.values()) < 10


def test_committed_results_hold_the_claims():
    path = Path(summarisation.__file__).parent / "results.json"
    numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for which, leads in numbers["leads"].items():
        without, attends = (numbers["models"][name]["scores"][which] for name in ("no attention", ALIGNED))
        for score in ("rouge2", "exact"):
            assert min(attends[score]["by_seed"]) > max(without[score]["by_seed"])
        assert min(without["rouge2"]["by_seed"]) > max(lead["rouge2"] for lead in leads.values())
        assert attends["rouge2"]["mean"] > numbers["models"][ALIGNED]["scores"][NEW]["rouge2"]["mean"] - 1, which
    assert NEW in numbers["leads"]
