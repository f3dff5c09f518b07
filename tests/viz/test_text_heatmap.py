"""Text heat maps: texts and backgrounds, line breaks, wrong calls."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from jax_attention import viz

WEIGHTS = np.array([[0.0, 0.1, 0.8, 0.1], [0.4, 0.3, 0.2, 0.1]])
WORDS = ["The", " cat", "$5", "天"]


def boxes(figure):
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_backgrounds_are_the_weights_on_one_scale():
    figure = viz.text_heatmap(WEIGHTS, WORDS, ["a", "b"], title="T", colours="Greens")
    actual = [patch.get_facecolor() for patch in boxes(figure)]
    expected = [colormaps["Greens"](w / 0.8) for w in WEIGHTS.ravel()]
    np.testing.assert_allclose(actual, expected)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["a", "The", "␣cat", "$5", "天", "b", "The", "␣cat", "$5", "天"]
    assert figure.axes[0].get_title() == "T"
    on_dark, on_light = figure.axes[0].texts[3], figure.axes[0].texts[1]
    assert (on_dark.get_color(), on_light.get_color()) == ("white", "black")
    assert figure.axes[1].get_ylim() == (0.0, 0.8)


def test_lines_are_broken_and_no_box_overlaps_another():
    words = [f"word{i}" for i in range(40)]
    figure = viz.text_heatmap(np.full((3, 40), 1 / 40), words, wide=3.0)
    rectangles = [(p.get_x(), p.get_y(), p.get_width(), p.get_height()) for p in boxes(figure)]
    assert len(rectangles) == 120
    assert max(x + w for x, _, w, _ in rectangles) <= 3.0
    assert len({round(y, 6) for _, y, _, _ in rectangles}) > 6
    for i, (x, y, w, h) in enumerate(rectangles):
        for u, v, a, b in rectangles[:i]:
            apart = u + a <= x + 1e-9 or x + w <= u + 1e-9 or v + b <= y + 1e-9 or y + h <= v + 1e-9
            assert apart
    assert [text.get_text() for text in figure.axes[0].texts][::41] == ["0", "1", "2"]


def test_a_word_wider_than_a_line_has_a_line_of_its_own_and_words_fit_their_boxes():
    figure = viz.text_heatmap(np.array([[0.5, 0.5]]), ["extraordinarily", "b"], wide=0.5)
    first, second = boxes(figure)
    assert (first.get_x(), second.get_x()) == (0, 0)
    assert second.get_y() > first.get_y()
    figure = viz.text_heatmap(np.array([[0.2] * 5]), ["mmm", "WWW", "iii", "天气很好", "a"])
    figure.canvas.draw()
    to_inches = figure.axes[0].transData.inverted()
    for box, text in zip(boxes(figure), figure.axes[0].texts[1:], strict=True):
        (left, _), (right, _) = to_inches.transform(text.get_window_extent().get_points())
        assert box.get_x() <= left
        assert right <= box.get_x() + box.get_width()


def test_weights_of_zero_are_drawn():
    figure = viz.text_heatmap(np.zeros((1, 2)), ["a", "b"])
    assert {patch.get_facecolor() for patch in boxes(figure)} == {colormaps["Blues"](0.0)}


WRONG = {
    "a row": (lambda: viz.text_heatmap(WEIGHTS[0], WORDS), r"weights: expected \[T, S\]"),
    "no words": (lambda: viz.text_heatmap(WEIGHTS, None), "keys: expected words, got None"),
    "too few": (lambda: viz.text_heatmap(WEIGHTS, WORDS[:3]), "keys: expected 4 labels"),
    "queries": (lambda: viz.text_heatmap(WEIGHTS, WORDS, ["a"]), "queries: expected 2 labels"),
    "NaN": (lambda: viz.text_heatmap(WEIGHTS * np.nan, WORDS), "weights: expected"),
    "no width": (lambda: viz.text_heatmap(WEIGHTS, WORDS, wide=0), "wide: expected inches > 0"),
    "colours": (lambda: viz.text_heatmap(WEIGHTS, WORDS, colours="blue"), "colours: expected the name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()
