"""What is on the pictures: the numbers, the words, and nothing cut off or lying on something else."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from jax_attention import attention_weights, masks, normalizers, viz
from tests.support.tiers import slow, slow_except

WORDS = ["The", " cat", " sat", " on", "the", "mat", "\n"]


def random_weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(shape[-1]), shape[:-1])


def ticks(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def boxes(texts) -> list:
    """Where each text lies on the drawn figure, in pixels."""
    figure = texts[0].get_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


def test_heat_map_shows_the_weights_with_queries_down_and_keys_across():
    weights = random_weights(2, 3)
    axes = viz.heat_map(weights, ["a", "b"], ["x", "y", "z"], title="t").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), weights)
    assert (ticks(axes.yaxis), ticks(axes.xaxis)) == (["a", "b"], ["x", "y", "z"])
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("query", "key", "t")
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "row 0 on top"
    assert [text.get_text() for text in axes.texts] == [f"{w:.2f}" for w in weights.ravel()]
    assert axes.images[0].norm.vmin == 0
    assert axes.images[0].norm.vmax == weights.max()


def test_keys_have_the_words_of_the_queries_unless_given():
    axes = viz.heat_map(random_weights(7, 7), WORDS).axes[0]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == ["The", "␣cat", "␣sat", "␣on", "the", "mat", "⏎"]
    assert ticks(viz.heat_map(random_weights(2, 2)).axes[0].xaxis) == ["0", "1"]


@pytest.mark.parametrize("convert", [jnp.asarray, lambda x: jnp.asarray(x, jnp.bfloat16), lambda x: x.tolist()])
def test_any_kind_of_array_is_drawn(convert):
    weights = np.array([[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_array_equal(viz.heat_map(convert(weights)).axes[0].images[0].get_array(), weights)


def test_rules_whose_rows_exceed_one_are_drawn_on_their_own_scale():
    x = 3 * np.eye(3, dtype=np.float32)
    weights = np.asarray(jax.jit(lambda x: attention_weights(x, x, x, normalize=normalizers.sigmoid()))(x))
    assert float(weights.sum(-1).max()) > 1.5
    assert viz.heat_map(weights).axes[0].images[0].norm.vmax == float(weights.max())
    assert viz.heat_map(10 * weights).axes[0].images[0].norm.vmax == float(10 * weights.max())


def test_a_map_of_zeros_is_a_map():
    axes = viz.heat_map(np.zeros((2, 2))).axes[0]
    assert {text.get_text() for text in axes.texts} == {"0"}
    assert axes.images[0].norm.vmax == 1


@pytest.mark.parametrize("colours", ["Blues", "gray", "viridis", "magma"])
def test_numbers_stand_out_from_their_cells(colours):
    """At least 4.5 : 1, the contrast that WCAG 2 asks of small text."""
    axes = viz.heat_map(np.linspace(0, 1, 49).reshape(7, 7), colours=colours, values=True).axes[0]
    image = axes.images[0]

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    cells = [luminance(image.cmap(image.norm(x))[:3]) for x in image.get_array().ravel()]
    for text, cell in zip(axes.texts, cells, strict=True):
        light, dark = sorted((luminance(text.get_color()), cell), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5


SHAPES = ((1, 1), (1, 3), (1, 90), (3, 30), (6, 6), (17, 16), (40, 5), (70, 2), (100, 100), (110, 40))


LABELLED = [pytest.param(*shape, n, id="-".join(map(str, (*shape, n)))) for n in (1, 12) for shape in SHAPES]
QUICK = ["1-3-12", "6-6-1", "17-16-12", "70-2-1"]


@pytest.mark.parametrize(("rows", "columns", "length"), slow_except(QUICK, LABELLED))
def test_no_label_is_cut_off_or_lies_on_its_neighbour(rows, columns, length):
    words = ["W" * length + str(i) for i in range(max(rows, columns))]
    weights = np.full((rows, columns), 1 / columns)
    figure = viz.heat_map(weights, words[:rows], words[:columns], title="A title", values=False)
    axes = figure.axes[0]
    down = boxes(axes.get_yticklabels())
    assert all(a.y0 >= b.y1 - 1 for a, b in pairwise(down)), "labels down the side overlap"
    if axes.get_xticklabels()[0].get_rotation() != 45:
        across = boxes(axes.get_xticklabels())
        assert all(a.x1 <= b.x0 + 1 for a, b in pairwise(across)), "labels across overlap"
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())  # in inches
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > 0.05


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 7, 7), (1, 1, 2, 20), *slow((12, 4, 64, 64))])
def test_nothing_of_a_grid_is_cut_off(shape):
    shape = shape if len(shape) > 2 else (5, *shape)
    words = [f"word{i}" for i in range(max(shape))]
    figure = viz.head_grid(random_weights(*shape), words[: shape[-2]], words[: shape[-1]], title="a title " * 5)
    drawn = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > 0.05


def test_crowded_labels_are_thinned_and_the_axis_says_so():
    axes = viz.heat_map(random_weights(300, 300), [f"w{i}" for i in range(300)]).axes[0]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == [f"w{i}" for i in range(0, 300, 3)]
    assert axes.get_xlabel() == "key (one label in 3)"
    assert not axes.texts


def test_every_word_of_a_hundred_is_written():
    words = [f"w{i}" for i in range(100)]
    axes = viz.heat_map(random_weights(100, 100), words).axes[0]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == words


def test_dollars_and_markup_are_letters():
    """matplotlib would read `$x$` as mathematics, and fail on `$\\frac$`."""
    words = ["$x$", r"$\frac$", "<b>", "a_b^c"]
    figure = viz.heat_map(random_weights(4, 4), words, title=r"$\frac$")
    boxes([figure.axes[0].title])  # draws
    assert ticks(figure.axes[0].xaxis) == words


def test_head_grid_has_one_scale_and_names_layers_and_heads():
    weights = random_weights(2, 3, 4, 4)
    figure = viz.head_grid(weights, list("abcd"), layers=(0, 11), title="t")
    maps = figure.axes[:6]
    for i, axes in enumerate(maps):
        np.testing.assert_array_equal(axes.images[0].get_array(), weights[i // 3, i % 3])
        assert axes.images[0].norm.vmax == weights.max()
    assert [axes.get_title() for axes in maps] == ["head 0", "head 1", "head 2", "", "", ""]
    assert [axes.get_ylabel() for axes in maps] == ["layer 0", "", "", "layer 11", "", ""]
    assert ticks(maps[0].yaxis) == ticks(maps[5].xaxis) == list("abcd")
    assert ticks(maps[1].yaxis) == ticks(maps[1].xaxis) == []
    lefts, tops = [axes.get_position().x0 for axes in maps], [axes.get_position().y1 for axes in maps]
    assert lefts[0] < lefts[1] < lefts[2]
    assert tops[0] > tops[3]


def test_heads_of_one_layer_fill_rows():
    figure = viz.head_grid(random_weights(8, 3, 3))
    titles = [axes.get_title() for axes in figure.axes[:8]]
    assert titles == [f"head {i}" for i in range(8)]
    tops = [round(axes.get_position().y1, 6) for axes in figure.axes[:8]]
    assert len(set(tops[:4])) == len(set(tops[4:])) == 1
    assert tops[0] > tops[4]


def test_alignment_is_grey_with_white_for_one_and_the_source_above():
    weights = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    axes = viz.alignment_map(weights, ["x", "y", "z"], ["a", "b"]).axes[0]
    image = axes.images[0]
    np.testing.assert_array_equal(image.get_array(), weights)
    assert image.cmap(image.norm(1.0))[:3] == (1, 1, 1)
    assert image.cmap(image.norm(0.0))[:3] == (0, 0, 0)
    assert viz.alignment_map(0.5 * weights, ["x", "y", "z"], ["a", "b"]).axes[0].images[0].norm.vmax == 1
    assert axes.xaxis.get_ticks_position() == "top"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source", "target")
    assert ticks(axes.yaxis) == ["a", "b"]


def test_entropy_map_shows_head_entropy_up_to_log_s():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5, 4)), jnp.float32)
    weights = np.array(jax.jit(lambda x: attention_weights(x, x, x, mask=masks.causal()))(x))
    weights[1, 2] = 0  # a head that attends to nothing
    axes = viz.entropy_map(weights, layers=("first", "last")).axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown.filled(np.nan), viz.head_entropy(weights))
    assert axes.images[0].norm.vmax == np.log(5)
    assert axes.texts[-1].get_text() == "–"  # noqa: RUF001
    assert ticks(axes.yaxis) == ["first", "last"]


QUIET = """
import sys
import numpy as np
from jax_attention import viz
w = np.full((2, 2, 3, 3), 1 / 3)
viz.rollout(w), viz.head_entropy(w), viz.html_page(w, list("abc"))
assert "matplotlib" not in sys.modules
import matplotlib
settings = lambda: dict(dict.items(matplotlib.rcParams))  # rcParams["backend"] would load pyplot by itself
before = settings()
figure = viz.heat_map(w[0, 0], list("abc"))
viz.head_grid(w), viz.entropy_map(w), viz.alignment_map(w[0, 0], list("abc"), list("abc"))
viz.text_heatmap(w[0, 0], list("abc"))
assert before == settings()
assert "matplotlib.pyplot" not in sys.modules
print("quiet")
"""


def test_pictures_touch_no_global_state_and_pages_need_no_matplotlib():
    done = subprocess.run([sys.executable, "-W", "error", "-c", QUIET], capture_output=True, text=True)
    assert done.stdout == "quiet\n", done.stderr


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (
        lambda: viz.heat_map(np.eye(2)),
        lambda: viz.head_grid(np.ones((1, 1, 1))),
        lambda: viz.entropy_map(np.ones((1, 1, 1, 1))),
        lambda: viz.alignment_map(np.eye(1), ["a"], ["b"]),
        lambda: viz.text_heatmap(np.eye(1), ["a"]),
    ):
        with pytest.raises(ImportError, match=r"pip install 'jax_attention\[viz\]'"):
            draw()
