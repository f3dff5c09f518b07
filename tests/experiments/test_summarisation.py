"""C2, summaries: a model with attention writes better ones than the same model without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import corpora
from experiments.seed_training import TrainingConfig
from experiments.seq2seq_models import Sizes
from experiments.summarisation import Config, report
from experiments.summarisation.experiment import ALIGNED, NEW, score_summaries
from experiments.summarisation.texts import PARTS, lead_summaries
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training

SHORT = Config(
    facts=(1, 1),
    fillers=(0, 0),
    train=2000,
    test=16,
    multiple=40,
    models=("no attention", ALIGNED),
    sizes=Sizes(width=32),
    recurrent=TrainingConfig(steps=200, batch_size=16, learning_rate=1e-2, seeds=(0,)),
)
TINY = replace(
    SHORT,
    train=200,
    test=4,
    models=(ALIGNED,),
    sizes=Sizes(width=8),
    recurrent=TrainingConfig(steps=2, batch_size=4, seeds=(0,)),
)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Two steps on a few reports, for properties that need no trained model."""
    with quick_training():
        return report.main(report.Options(TINY, out=tmp_path_factory.mktemp("summarisation")))


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return report.main(report.Options(SHORT, out=tmp_path_factory.mktemp("summarisation")))


def test_the_command_writes_numbers_and_figures(tiny_run):
    numbers = read_numbers(tiny_run.folder, "alignment.png", "losses.png", "right.png")
    assert tuple(numbers["models"]) == TINY.models
    assert len(numbers["summaries"]) == report.SHOWN


@pytest.mark.slow
def test_c2_attention_predicts_and_writes_better(trained_run):
    without, attends = (trained_run.results.models[name] for name in SHORT.models)
    assert without.losses[0, -20:].mean() < 0.5 * without.losses[0, 0]
    assert attends.losses[0, -20:].mean() < without.losses[0, -20:].mean() - 0.05
    for which, reports in trained_run.results.reports.items():
        rouge = [score_summaries(model.summaries[which][0], reports)["rouge2"] for model in (without, attends)]
        assert rouge[1] > rouge[0] + 5, which


def test_the_map_is_over_the_words_of_document_and_summary(tiny_run):
    alignment = tiny_run.results.alignment
    assert alignment.weights.shape == (len(alignment.summary), len(alignment.document))
    np.testing.assert_allclose(alignment.weights.sum(-1), 1, rtol=1e-5)
    axes = tiny_run.figures["alignment"].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == alignment.document
    assert [label.get_text() for label in axes.get_yticklabels()] == alignment.summary


def test_figures_name_what_they_show(tiny_run):
    figures = tiny_run.figures
    assert [text.get_text() for text in figures["right"].legends[0].get_texts()] == list(TINY.models)
    assert [label.get_text() for label in figures["right"].axes[0].get_xticklabels()] == ["exact", *PARTS]


def test_scores_of_right_and_wrong_summaries():
    reports = corpora.reports(0, 40)
    right = score_summaries([report.summary for report in reports], reports)
    assert {name: round(score) for name, score in right.items() if name.startswith("rouge")} == {
        "rouge1": 100,
        "rouge2": 100,
        "rougeL": 100,
    }
    assert all(right[name] == 1 for name in ("exact", *PARTS))
    target = corpora.Report("", "A storm hit Rome on Monday . It blocked two roads and closed three schools .")
    wrong = score_summaries(["A storm hit Oslo on Monday . It blocked three roads and closed two schools ."], [target])
    assert [wrong[name] for name in ("exact", *PARTS)] == [0, 1, 0, 1, 0, 1]


def test_first_sentences_are_poor_summaries():
    reports = corpora.reports(0, 100)
    leads = {name: score_summaries(texts, reports)["rouge2"] for name, texts in lead_summaries(reports).items()}
    assert list(leads) == ["the first sentence", "the first three", "all"]
    assert max(leads.values()) < 10


def test_committed_results_hold_the_claims():
    path = Path(report.__file__).parent / "results.json"
    numbers = json.loads(path.read_text(encoding="utf-8"))["numbers"]
    for which, leads in numbers["leads"].items():
        without, attends = (numbers["models"][name]["scores"][which] for name in ("no attention", ALIGNED))
        for score in ("rouge2", "exact"):
            assert min(attends[score]["by_seed"]) > max(without[score]["by_seed"])
        assert min(without["rouge2"]["by_seed"]) > max(lead["rouge2"] for lead in leads.values())
        assert attends["rouge2"]["mean"] > numbers["models"][ALIGNED]["scores"][NEW]["rouge2"]["mean"] - 1, which
    assert NEW in numbers["leads"]
