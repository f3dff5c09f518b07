"""C3: attention recalls over long distances, a model without attention does not; growth of cost with length."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.long_range import SMALL, Config, cost, recall, report
from experiments.seed_training import TrainingConfig
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training

COST = cost.CostConfig(width=8, lengths=(16, 32), memory_lengths=(1024, 2048), rounds=2)
TRAINING = recall.ModelTraining("dot", TrainingConfig(2, 4, 1e-2, (0, 1)))
FEW = replace(SMALL.few, width=8, rows=20, asked=10, beyond=2, beyond_distances=(1, 2), taught=(TRAINING,))
TINY = Config(
    FEW,
    replace(FEW, rows=21),
    cost.CostConfig(width=8, lengths=(16, 32), memory_lengths=(16, 32), rounds=1),
)
COMMITTED = Path(__file__).parents[2] / "experiments" / "long_range" / "results.json"


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Two steps on a few rows, twice with the same shapes, for properties that need no trained model."""
    with quick_training(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall.RecallConfig, "name", property(lambda config: f"{config.rows} rows"))
        return report.main(report.Options(TINY, out=tmp_path_factory.mktemp("long_range")))


@pytest.fixture(scope="module")
def numbers():
    return json.loads(COMMITTED.read_text(encoding="utf-8"))["numbers"]


def test_the_name_of_a_setting_has_its_sizes():
    assert SMALL.few.name != SMALL.many.name
    assert str(SMALL.few.keys) in SMALL.few.name


@pytest.mark.slow
def test_c3_dot_finds_keys_at_every_distance():
    results = recall.run(SMALL.few)
    dot, without = results["dot"], results["no attention"]
    assert dot.inside.shape == (2, 2)
    assert dot.inside.min() > 0.65, "chance is 1 / keys, and 1 / 2 for a model that knows only the values of the source"
    assert dot.inside.mean() > without.inside.mean() + 0.15


@pytest.mark.slow
def test_c3_memory_grows_linearly_unless_all_scores_are_held():
    memory = cost.memory(COST)
    slopes = {name: cost.growth_exponent(COST.memory_lengths, sizes) for name, sizes in memory.items()}
    assert slopes[cost.DENSE] > 1.9
    assert slopes[cost.GRU] < 1.1
    assert slopes[cost.CHOSEN] < 1.1
    assert memory[cost.DENSE][-1] > 5 * memory[cost.CHOSEN][-1]


def test_c3_the_committed_run_holds_the_claims(numbers):
    few, many = numbers["recall"].values()
    assert np.min(few["dot"]["inside"]) > 0.95
    assert np.min(many["dot"]["inside"]) > 0.95
    assert np.max(np.mean(many["no attention"]["inside"], axis=0)) < 0.5
    mib = numbers["mib"]
    assert mib[cost.DENSE]["growth"] > 1.9
    assert max(mib[cost.GRU]["growth"], mib[cost.CHOSEN]["growth"]) < 1.1
    assert mib[cost.DENSE]["values"][-1] > 20 * mib[cost.CHOSEN]["values"][-1]


def test_both_attention_layers_compute_the_same():
    x = np.random.default_rng(0).standard_normal((16, 8), np.float32)
    layers = cost.make_layers(COST)
    outputs = jax.jit(lambda layers, x: (layers[cost.CHOSEN](x), layers[cost.DENSE](x)))
    chosen, dense = outputs(layers, x)
    np.testing.assert_allclose(chosen, dense, rtol=1e-5, atol=1e-6)


def test_c3_in_the_committed_run_time_grows_faster_if_all_scores_are_held(numbers):
    seconds = numbers["seconds"]
    assert seconds[cost.DENSE]["growth"] > seconds[cost.CHOSEN]["growth"] + 0.3
    assert seconds[cost.DENSE]["values"][-1] > 2 * seconds[cost.CHOSEN]["values"][-1]
    assert seconds[cost.GRU]["growth"] < 1.2


def test_questions_are_new():
    config = SMALL.few
    training = recall.make_rows(config, recall.TRAINING_SEED, config.rows, (1, config.most))
    known = set(map(tuple, training.arrays.source.tolist()))
    for batch in recall.question_batches(config, config.most, config.distances, training):
        assert len(batch.source) == config.asked == len(batch.targets)
        assert not known & set(map(tuple, batch.source.tolist()))
        assert batch.source.shape[1] == training.arrays.source.shape[1], "or no row could be in the training set"


def test_questions_ask_at_their_distance():
    batch = recall.make_rows(SMALL.few, 5, 20, 3, 2).arrays
    key = batch.source[:, 2]  # of 3 keys the second from the end is the second
    assert (batch.source[:, -1] == key).all()
    assert (batch.targets[:, 0] == batch.source[:, 3]).all()


def test_accuracy_of_the_most_frequent_value():
    assert recall.most_frequent_value_accuracy(SMALL.few, 1) == 1
    assert 0.5 < recall.most_frequent_value_accuracy(SMALL.few, 2) < 0.7, "0.5 + 0.5 / 5"


def test_growth_is_the_slope():
    assert cost.growth_exponent((1, 2, 4, 8), np.array([5.0, 4.0, 16.0, 64.0])) == pytest.approx(2)


def test_the_command_writes_its_files(tiny_run):
    numbers = read_numbers(tiny_run.folder, "cost.png", "few_keys.png", "many_keys.png")
    assert list(numbers) == ["recall", "seconds", "mib"]
    few, many = numbers["recall"].values()
    assert np.shape(few["dot"]["inside"]) == np.shape(many["dot"]["inside"]) == (2, 2)
    assert all(np.shape(numbers[part][name]["values"]) == (2,) for part in ("seconds", "mib") for name in cost.LAYERS)


def test_the_command_takes_small_sizes(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "run", lambda config: tiny_run.results)
    monkeypatch.setattr(report, "SMALL", TINY)
    report.main(report.Options(small=True, out=tmp_path))
    assert "grows as T^" in capsys.readouterr().out
    assert list(read_numbers(tmp_path, "cost.png", "few_keys.png", "many_keys.png")) == ["recall", "seconds", "mib"]


def test_figures_are_labelled(tiny_run):
    figures = tiny_run.figures
    assert [axes.get_ylabel() for axes in figures["cost"].axes] == ["milliseconds", "MiB"]
    assert "keys" in figures["few_keys"].axes[0].get_xlabel()
    legend = figures["cost"].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(cost.LAYERS)
