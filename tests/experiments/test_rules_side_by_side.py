"""B1, B2, B3, B5, C1: every rule on the same tasks, what concat cannot do and why, attention as a layer, cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import measure
from experiments.learn import Schooling
from experiments.pair_models import RULES
from experiments.rules_side_by_side import SMALL, Config, Results, __main__, cost, layer, tasks
from experiments.rules_side_by_side.rules import score_of
from tests.experiments.folder import commanded, left_behind, small_programs
from tests.support.tolerances import FORWARD

REVERSE = replace(SMALL.reverse, held_out=60)
LAYER = replace(SMALL.layer, schooling=Schooling(150, 16, 2e-2, (0, 1)), rules=("dot", "location"))
TRAINED = ("dot", "scaled dot", "additive", "additive, plain sum", "concat", "cosine", "cosine, scale 10")
REVERSE_TINY = replace(SMALL.reverse, rows=20, held_out=4, schooling=Schooling(2, 4, 2e-2, (0, 1)))
TINY = Config(
    rules=("dot",),
    width=8,
    reverse=REVERSE_TINY,
    recall=replace(REVERSE_TINY, rows=30),  # the same shapes, so that no second program is compiled
    layer=replace(SMALL.layer, rules=("location",), schooling=Schooling(2, 4, 2e-2, (0, 1)), held_out=8),
    cost=cost.CostConfig(rounds=1, length=16, width=8),
)
COMMITTED = Path(__file__).parents[2] / "experiments" / "rules_side_by_side" / "results.json"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Two steps on a few rows: all that holds before anything is learned."""
    with small_programs():
        return commanded(__main__, TINY, tmp_path_factory.mktemp("rules_side_by_side"))


@pytest.fixture(scope="module")
def found():
    small = cost.CostConfig(rounds=2, length=1024, width=16)
    return Results(
        {"reverse": tasks.run(REVERSE, TRAINED, 16)},
        layer.run(LAYER),
        {"dot": 1.0, "concat": 1.0},
        cost.memory(small, ("dot", "concat", "additive", "additive, plain sum")),
    )


@pytest.fixture(scope="module")
def numbers():
    return json.loads(COMMITTED.read_text(encoding="utf-8"))["numbers"]


@pytest.mark.slow
def test_b1_concat_gives_every_query_the_same_weights(found):
    concat, dot = (found.tasks["reverse"][name] for name in ("concat", "dot"))
    assert concat.spread.max() < FORWARD["float32"]
    assert dot.spread.min() > 0.3
    np.testing.assert_allclose(concat.maps, np.broadcast_to(concat.maps[:, :1], concat.maps.shape), atol=1e-6)


@pytest.mark.slow
def test_b3_dot_aims_where_concat_cannot(found):
    concat, dot = (found.tasks["reverse"][name] for name in ("concat", "dot"))
    assert dot.aim.min() > 1.5 * concat.aim.max()
    assert (dot.last_loss < concat.last_loss).all()
    for judged in (concat, dot):
        np.testing.assert_allclose(judged.maps.sum(-1), 1, rtol=FORWARD["float32"])
        assert (judged.sequences <= judged.tokens).all()


@pytest.mark.slow
def test_b2_c1_the_tanh_and_the_scale_let_a_rule_aim(found):
    aim = {name: judged.aim.mean() for name, judged in found.tasks["reverse"].items()}
    for name in ("additive", "additive, plain sum"):
        assert aim[name] > aim["concat"] + 0.15, name
    assert aim["cosine, scale 10"] > aim["cosine"] + 0.15
    assert aim["cosine"] < 0.4


@pytest.mark.slow
def test_b3_the_scaled_product_aims_too(found):
    scaled, concat = (found.tasks["reverse"][name] for name in ("scaled dot", "concat"))
    assert scaled.aim.min() > concat.aim.max() + 0.03


@pytest.mark.slow
def test_b2_no_hidden_unit_of_every_pair_is_kept(found):
    """All at once they are 1024 x 1024 x 16 numbers, 64 MiB."""
    for name in ("additive", "additive, plain sum"):
        assert found.memory[name].reference > 60
        assert found.memory[name].chosen < found.memory[name].reference / 8, name


@pytest.mark.slow
def test_b5_the_layer_takes_every_rule():
    config, key = layer.LayerConfig(), jax.random.key(0)
    batch = layer.Vectors("by content", config).batch(0, 0, 2)
    for name in RULES[1:]:
        weights = layer.layer_of(name, config, key).weights(*layer.operands(name, batch))
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=FORWARD["float32"])
    assert layer.layer_of("cosine / sqrt(d)", config, key).score.value.scale == config.query_size**-0.5
    assert layer.layer_of("additive, plain sum", config, key).score.vector is None


@pytest.mark.slow
def test_b5_the_layer_learns_what_its_rule_can_see(found):
    by_place, by_content = found.layer["by place"], found.layer["by content"]
    assert by_place["location"].error.max() < 0.3 < 0.9 < by_place["dot"].error.min()
    assert by_content["dot"].error.max() < 0.3 < 0.9 < by_content["location"].error.min()
    assert by_content["dot"].aim.min() > 0.9
    for by_rule in found.layer.values():
        for judged in by_rule.values():
            assert judged.sums_off_by.max() < FORWARD["float32"]


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
    errors = {task: {name: layer["error"] for name, layer in found.items()} for task, found in numbers["layer"].items()}
    assert max(errors["by content"]["dot"] + errors["by place"]["location"]) < 0.01
    assert min(errors["by content"]["location"] + errors["by place"]["dot"]) > 0.9


def test_held_out_rows_are_new_and_places_hold_the_target():
    for config in (SMALL.reverse, SMALL.recall):
        trained, held_out = tasks.rows(config)
        known = {tuple(row) for batch in trained.evaluation_batches(256) for row in batch.source}
        assert not known & {tuple(row) for row in held_out.source}
        places = tasks.places(config, held_out.source)
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
    monkeypatch.setattr(measure, "interleaved", lambda calls, rounds: {n: np.arange(1.0, 4) * len(n) for n in calls})
    assert cost.times(cost.CostConfig(rounds=3), ("dot", "concat"), 8, task) == {"dot": 1.0, "concat": 2.0}


def test_the_command_leaves_its_files(untrained):
    numbers = left_behind(untrained.folder, "accuracy.png", "alignments.png")
    assert list(numbers) == ["reverse", "layer", "time_over_dot", "memory_mib"]
    assert numbers["time_over_dot"] == {"dot": 1}
    assert numbers["memory_mib"].keys() == {"dot"}
    assert numbers["layer"].keys() == {"by place", "by content"}
    assert np.shape(numbers["reverse"]["dot"]["aim"]) == (2,)


def test_maps_are_weights_and_rows_are_right_no_more_often_than_tokens(untrained):
    for by_rule in untrained.found.tasks.values():
        np.testing.assert_allclose(by_rule["dot"].maps.sum(-1), 1, rtol=FORWARD["float32"])
        for judged in by_rule.values():
            assert judged.tokens.shape == (2,)
            assert (judged.sequences <= judged.tokens).all()
    for by_rule in untrained.found.layer.values():
        assert by_rule["location"].sums_off_by.max() < FORWARD["float32"]


def test_the_command_takes_small_sizes(untrained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(__main__, "run", lambda config: untrained.found)
    __main__.main(__main__.Options(small=True, out=tmp_path))
    assert "nn.Attn by content, location" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["config"]["width"] == SMALL.width


def test_figures_are_labelled(untrained):
    drawn = untrained.drawn
    assert [label.get_text() for label in drawn["accuracy"].axes[0].get_yticklabels()] == list(TINY.rules)
    axes = drawn["alignments"].axes[0]
    across = [label.get_text() for label in axes.get_xticklabels()]
    assert [label.get_text() for label in axes.get_yticklabels()] == [*across[::-1], "stop"]
    assert axes.get_xlabel() == "read"
