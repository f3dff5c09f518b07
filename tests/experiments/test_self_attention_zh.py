"""A1 to A5: what reconstructing two Chinese sentences does to attention."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments import learn, self_attention_zh
from experiments.self_attention_zh import SMALL, embedded, one_head, watched
from experiments.self_attention_zh.__main__ import draw, numbers_of
from jax_attention import attend
from tests.support.tolerances import FORWARD


@pytest.fixture(scope="module")
def found():
    return self_attention_zh.run(SMALL)


def test_a1_is_softmax_of_x_x_times_x(found):
    x = np.asarray(embedded(SMALL), np.float64)
    scores = x @ x.swapaxes(1, 2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(found.free_weights, weights, rtol=FORWARD["float32"], atol=FORWARD["float32"])
    assert found.free_loss == pytest.approx(np.mean((weights @ x - x) ** 2), rel=1e-3)


def test_a1_words_of_one_meaning_share_a_vector():
    x = np.asarray(embedded(SMALL))
    assert x.shape == (2, 4, SMALL.size)
    assert (x[0, :2] == x[1, :2]).all()
    assert (x[0, 2:] != x[1, 2:]).all()


@pytest.mark.parametrize("name", self_attention_zh.LAYERS)
def test_a3_the_loss_falls_a_hundredfold(found, name):
    trained = found.trained[name]
    assert trained.losses.shape == (len(SMALL.seeds), SMALL.steps + 1)
    assert (trained.falls > 100).all(), trained.falls


def test_a2_one_head_is_the_pure_rule_between_four_matrices():
    layer, x = jax.jit(lambda rng: one_head(SMALL, rng))(jax.random.key(0)), embedded(SMALL)
    q, k, v, out = (part.kernel[...] for part in (layer.query, layer.key, layer.value, layer.out))
    assert {kernel.shape for kernel in (q, k, v, out)} == {(SMALL.size, SMALL.size)}
    tolerance = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}
    found, expected = jax.jit(lambda layer, x: (layer(x), attend(x @ q, x @ k, x @ v) @ out))(layer, x)
    np.testing.assert_allclose(found, expected, **tolerance)
    assert learn.parameters(layer) == 4 * SMALL.size**2, "and nothing else"


def test_a5_heads_look_in_different_places(found):
    after = found.trained["several heads"].after
    assert (np.abs(after - after[:, :, :1]).max(axis=(1, 2, 3, 4)) > 0.3).all()


def test_a3_a5_maps_are_weights_and_training_moves_them(found):
    for name, heads in (("one head", 1), ("several heads", SMALL.heads)):
        trained = found.trained[name]
        for maps in (trained.before, trained.after):
            assert maps.shape == (len(SMALL.seeds), 2, heads, 4, 4)
            np.testing.assert_allclose(maps.sum(-1), 1, rtol=FORWARD["float32"])
        assert np.abs(trained.after - trained.before).max() > 0.3


def test_a3_the_watched_weight_is_that_of_its_words(found):
    maps = np.zeros((2, 1, 4, 4))
    maps[0, 0, 2, 3] = 0.75  # sentence 0, 写 is its third word, 代码 its fourth
    assert watched(SMALL, maps).tolist() == [0.75]
    numbers = numbers_of(SMALL, found)
    assert np.shape(numbers["several heads"]["watched_after"]) == (len(SMALL.seeds), SMALL.heads)


def test_a4_maps_carry_the_words(found):
    drawn = draw(SMALL, found)
    for name in ("no_parameters", "one_head_before", "one_head_after", "several_heads_after"):
        axes = drawn[name].axes
        assert [label.get_text() for label in axes[0].get_yticklabels()] == list(SMALL.sentences[0]), name
    assert len(drawn["several_heads_after"].axes) >= SMALL.heads
