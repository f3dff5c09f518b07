"""A1 to A5: self-attention that is trained to reconstruct two Chinese sentences."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments.seed_training import count_parameters
from experiments.self_attention_zh.drawing import draw
from experiments.self_attention_zh.experiment import LAYERS, SMALL, embed, one_head, run, weight_between_words
from experiments.self_attention_zh.report import result_numbers
from jax_attention import attend
from tests.support.tolerances import FORWARD


@pytest.fixture(scope="module")
def results():
    return run(SMALL)


def test_a1_is_softmax_of_x_x_times_x(results):
    x = np.asarray(embed(SMALL), np.float64)
    scores = x @ x.swapaxes(1, 2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(results.free_weights, weights, rtol=FORWARD["float32"], atol=FORWARD["float32"])
    assert results.free_loss == pytest.approx(np.mean((weights @ x - x) ** 2), rel=1e-3)


def test_a1_words_of_one_meaning_share_a_vector():
    x = np.asarray(embed(SMALL))
    assert x.shape == (2, 4, SMALL.size)
    assert (x[0, :2] == x[1, :2]).all()
    assert (x[0, 2:] != x[1, 2:]).all()


@pytest.mark.parametrize("name", LAYERS)
def test_a3_the_loss_falls_a_hundredfold(results, name):
    trained = results.trained[name]
    assert trained.losses.shape == (len(SMALL.seeds), SMALL.steps + 1)
    assert (trained.loss_ratios > 100).all(), trained.loss_ratios


def test_a2_one_head_is_attend_between_four_matrices():
    layer, x = jax.jit(lambda rng: one_head(SMALL, rng))(jax.random.key(0)), embed(SMALL)
    q, k, v, out = (part.kernel[...] for part in (layer.query, layer.key, layer.value, layer.out))
    assert {kernel.shape for kernel in (q, k, v, out)} == {(SMALL.size, SMALL.size)}
    tolerance = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
    output, expected = jax.jit(lambda layer, x: (layer(x), attend(x @ q, x @ k, x @ v) @ out))(layer, x)
    np.testing.assert_allclose(output, expected, **tolerance)
    assert count_parameters(layer) == 4 * SMALL.size**2, "and nothing else"


def test_a5_heads_look_in_different_places(results):
    after = results.trained["several heads"].after
    assert (np.abs(after - after[:, :, :1]).max(axis=(1, 2, 3, 4)) > 0.3).all()


def test_a3_a5_maps_are_weights_and_training_moves_them(results):
    for name, heads in (("one head", 1), ("several heads", SMALL.heads)):
        trained = results.trained[name]
        for maps in (trained.before, trained.after):
            assert maps.shape == (len(SMALL.seeds), 2, heads, 4, 4)
            np.testing.assert_allclose(maps.sum(-1), 1, rtol=FORWARD["float32"])
        assert np.abs(trained.after - trained.before).max() > 0.3


def test_a3_the_reported_weight_is_that_of_its_words(results):
    maps = np.zeros((2, 1, 4, 4))
    maps[0, 0, 2, 3] = 0.75  # sentence 0, 写 is its third word, 代码 its fourth
    assert weight_between_words(SMALL, maps).tolist() == [0.75]
    numbers = result_numbers(SMALL, results)
    assert np.shape(numbers["several heads"]["weight_after"]) == (len(SMALL.seeds), SMALL.heads)


def test_a4_maps_carry_the_words(results):
    figures = draw(SMALL, results)
    for name in ("no_parameters", "one_head_before", "one_head_after", "several_heads_after"):
        axes = figures[name].axes
        assert [label.get_text() for label in axes[0].get_yticklabels()] == list(SMALL.sentences[0]), name
    assert len(figures["several_heads_after"].axes) >= SMALL.heads
