"""B1, B2, B3, B5, C1: every rule on the same tasks, why concat cannot align, attention as a layer, cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import measure
from experiments.rules_side_by_side import SMALL, Config, Results, cost, layer, report, tasks
from experiments.rules_side_by_side.rules import score_of
from experiments.seed_training import TrainingConfig
from experiments.seq2seq_models import RULES
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training
from tests.support.tolerances import FORWARD

REVERSE = replace(SMALL.reverse, held_out=60)
LAYER = replace(SMALL.layer, schooling=TrainingConfig(150, 16, 2e-2, (0, 1)), rules=("dot", "location"))
TRAINED = ("dot", "scaled dot", "additive", "additive, plain sum", "concat", "cosine", "cosine, scale 10")
REVERSE_TINY = replace(SMALL.reverse, rows=20, held_out=4, schooling=TrainingConfig(2, 4, 2e-2, (0, 1)))
TINY = Config(
    rules=("dot",),
    width=8,
    reverse=REVERSE_TINY,
    recall=replace(REVERSE_TINY, rows=30),  # the same shapes, so that no second program is compiled
    layer=replace(SMALL.layer, rules=("location",), schooling=TrainingConfig(2, 4, 2e-2, (0, 1)), held_out=8),
    cost=cost.CostConfig(rounds=1, length=16, width=8),
)
COMMITTED = Path(__file__).parents[2] / "experiments" / "rules_side_by_side" / "results.json"


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Two steps on a few rows, for properties that need no trained model."""
    with quick_training():
        return report.main(report.Options(TINY, out=tmp_path_factory.mktemp("rules_side_by_side")))


@pytest.fixture(scope="module")
def results():
    small = cost.CostConfig(rounds=2, length=1024, width=16)
    return Results(
        {"reverse": tasks.run(REVERSE, TRAINED, 16)},
        layer.run(LAYER),
        {"dot": 1.0, "concat": 1.0},
        cost.memory_mib(small, ("dot", "concat", "additive", "additive, plain sum")),
    )


@pytest.fixture(scope="module")
def numbers():
    return json.loads(COMMITTED.read_text(encoding="utf-8"))["numbers"]


@pytest.mark.slow
def test_b1_concat_gives_every_query_the_same_weights(results):
    concat, dot = (results.tasks["reverse"][name] for name in ("concat", "dot"))
    assert concat.spread.max() < FORWARD["float32"]
    assert dot.spread.min() > 0.3
    np.testing.assert_allclose(concat.maps, np.broadcast_to(concat.maps[:, :1], concat.maps.shape), atol=1e-6)


@pytest.mark.slow
def test_b3_dot_aims_where_concat_cannot(results):
    concat, dot = (results.tasks["reverse"][name] for name in ("concat", "dot"))
    assert dot.aim.min() > 1.5 * concat.aim.max()
    assert (dot.last_loss < concat.last_loss).all()
    for result in (concat, dot):
        np.testing.assert_allclose(result.maps.sum(-1), 1, rtol=FORWARD["float32"])
        assert (result.sequences <= result.tokens).all()


@pytest.mark.slow
def test_b2_c1_the_tanh_and_the_scale_let_a_rule_aim(results):
    aim = {name: result.aim.mean() for name, result in results.tasks["reverse"].items()}
    for name in ("additive", "additive, plain sum"):
        assert aim[name] > aim["concat"] + 0.15, name
    assert aim["cosine, scale 10"] > aim["cosine"] + 0.15
    assert aim["cosine"] < 0.4


@pytest.mark.slow
def test_b3_the_scaled_product_aims_too(results):
    scaled, concat = (results.tasks["reverse"][name] for name in ("scaled dot", "concat"))
    assert scaled.aim.min() > concat.aim.max() + 0.03


@pytest.mark.slow
def test_b2_hidden_units_of_all_pairs_are_never_held_at_once(results):
    """All of them are 1024 x 1024 x 16 numbers, 64 MiB."""
    for name in ("additive", "additive, plain sum"):
        assert results.memory[name].reference > 60
        assert results.memory[name].chosen < results.memory[name].reference / 8, name


@pytest.mark.slow
def test_b5_the_layer_takes_every_rule():
    config, key = layer.LayerConfig(), jax.random.key(0)
    batch = layer.VectorBatches("by content", config).batch(0, 0, 2)
    for name in RULES[1:]:
        weights = layer.make_layer(name, config, key).weights(*layer.operands(name, batch))
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=FORWARD["float32"])
    assert layer.make_layer("cosine / sqrt(d)", config, key).score.value.scale == config.query_size**-0.5
    assert layer.make_layer("additive, plain sum", config, key).score.vector is None


@pytest.mark.slow
def test_b5_the_layer_learns_what_its_rule_can_see(results):
    by_place, by_content = results.layer["by place"], results.layer["by content"]
    assert by_place["location"].error.max() < 0.3 < 0.9 < by_place["dot"].error.min()
    assert by_content["dot"].error.max() < 0.3 < 0.9 < by_content["location"].error.min()
    assert by_content["dot"].aim.min() > 0.9
    for by_rule in results.layer.values():
        for result in by_rule.values():
            assert result.sums_off_by.max() < FORWARD["float32"]


def test_b1_c1_the_committed_run_holds_the_claims(numbers):
    reverse, recall = numbers["reverse"], numbers["recall"]
    for by_rule in (reverse, recall):
        assert max(by_rule["concat"]["spread"]) < FORWARD["float32"]
        for name in ("dot", "cosine, scale 10"):
            assert min(by_rule[name]["sequences"]) > 0.95, name
            assert min(by_rule[name]["aim"]) > 2 * max(by_rule["cosine"]["aim"]), name
    assert max(reverse["concat"]["sequences"] + reverse["cosine"]["sequences"]) < 0.8
    for by_rule in (reverse, recall):
        assert np.mean(by_rule["cosine / sqrt(d)"]["sequences"]) < np.mean(by_rule["no attention"]["sequences"]) + 0.15
        assert max(by_rule["cosine / sqrt(d)"]["aim"]) < min(by_rule["cosine, scale 10"]["aim"]) / 3
    assert min(reverse["location"]["sequences"]) > 0.95
    assert max(recall["location"]["sequences"]) < 0.95
    assert all(mib["reference"] > mib["chosen"] for mib in numbers["memory_mib"].values())
    assert numbers["memory_mib"]["additive"]["reference"] > 100 * numbers["memory_mib"]["additive"]["chosen"]
    errors = {
        task: {name: layer["error"] for name, layer in by_rule.items()} for task, by_rule in numbers["layer"].items()
    }
    assert max(errors["by content"]["dot"] + errors["by place"]["location"]) < 0.01
    assert min(errors["by content"]["location"] + errors["by place"]["dot"]) > 0.9


def test_held_out_rows_are_new_and_places_hold_the_target():
    for config in (SMALL.reverse, SMALL.recall):
        trained, held_out = tasks.make_rows(config)
        known = {tuple(row) for batch in trained.evaluation_batches(256) for row in batch.source}
        assert not known & {tuple(row) for row in held_out.source}
        places = tasks.target_positions(config, held_out.source)
        answers = np.take_along_axis(held_out.source, places, axis=1)
        assert (answers == held_out.targets[:, : places.shape[1]]).all()


def test_every_rule_has_a_model_and_a_score():
    assert set(Config().rules) == set(RULES)
    row = jax.ShapeDtypeStruct((3, 4), np.float32)
    for name in RULES[1:]:
        assert jax.eval_shape(lambda q, k, name=name: score_of(name, 4, 3)(q, k), row, row).shape == (3, 3), name


@pytest.mark.slow
def test_time_over_dot_is_of_the_models(monkeypatch):
    task = replace(SMALL.reverse, rows=8, held_out=4)
    monkeypatch.setattr(
        measure, "time_interleaved", lambda calls, rounds: {n: np.arange(1.0, 4) * len(n) for n in calls}
    )
    assert cost.relative_times(cost.CostConfig(rounds=3), ("dot", "concat"), 8, task) == {"dot": 1.0, "concat": 2.0}


def test_the_command_writes_its_files(tiny_run):
    numbers = read_numbers(tiny_run.folder, "accuracy.png", "alignments.png")
    assert list(numbers) == ["reverse", "layer", "time_over_dot", "memory_mib"]
    assert numbers["time_over_dot"] == {"dot": 1}
    assert numbers["memory_mib"].keys() == {"dot"}
    assert numbers["layer"].keys() == {"by place", "by content"}
    assert np.shape(numbers["reverse"]["dot"]["aim"]) == (2,)


def test_maps_are_weights_and_rows_are_right_no_more_often_than_tokens(tiny_run):
    for by_rule in tiny_run.results.tasks.values():
        np.testing.assert_allclose(by_rule["dot"].maps.sum(-1), 1, rtol=FORWARD["float32"])
        for result in by_rule.values():
            assert result.tokens.shape == (2,)
            assert (result.sequences <= result.tokens).all()
    for by_rule in tiny_run.results.layer.values():
        assert by_rule["location"].sums_off_by.max() < FORWARD["float32"]


def test_the_command_takes_small_sizes(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "run", lambda config: tiny_run.results)
    report.main(report.Options(small=True, out=tmp_path))
    assert "nn.Attn by content, location" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["config"]["width"] == SMALL.width


def test_figures_are_labelled(tiny_run):
    figures = tiny_run.figures
    assert [label.get_text() for label in figures["accuracy"].axes[0].get_yticklabels()] == list(TINY.rules)
    axes = figures["alignments"].axes[0]
    across = [label.get_text() for label in axes.get_xticklabels()]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*across[::-1], "stop"]
    assert axes.get_xlabel() == "read"
