"""B11: words about images, what they look at, and what they need."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import digits
from experiments.digits import descriptions, hiding
from experiments.digits.__main__ import HERE, Options, draw, main
from experiments.digits.descriptions import KINDS, WORDS, described
from experiments.digits.model import Pictures, Sizes
from experiments.learn import Schooling
from jax_attention.cache import EMPTY
from tests.experiments.folder import left_behind

TINY = digits.Config(
    sizes=Sizes(width=32, dropout=0.0), schooling=Schooling(300, learning_rate=8e-3, seeds=(0,)), counts=(4,)
)
DIGIT, TOP, BOTTOM = (KINDS.index(kind) for kind in ("digit", "top", "bottom"))
MOST, ANY, LEAST = range(3)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the command leaves, with one seed."""
    out = tmp_path_factory.mktemp("digits")
    main(Options(config=TINY, out=out))
    return left_behind(out, "hiding.png", "maps.png", "words.png")


@pytest.fixture(scope="module")
def committed():
    return json.loads((HERE / "results.json").read_text(encoding="utf-8"))["numbers"]


def test_words_are_computed_from_pixels():
    training, held_out = described(0.2)
    assert len(training.images) == 1438
    assert len(held_out.images) == 359
    words = descriptions.of_kind(training.words)
    thick = words["ink"] == WORDS.index("thick")
    assert 0.45 < thick.mean() < 0.55
    ink = training.images.sum((1, 2, 3))
    assert ink[thick].min() > ink[~thick].max() - 1e-6
    heavy = words["top"] == WORDS.index("top-heavy")
    assert training.images[heavy, :2].sum((1, 2, 3)).min() > training.images[~heavy, :2].sum((1, 2, 3)).max() - 1e-6
    line = np.eye(8)[None]
    assert descriptions.slant(line[:, ::-1])[0] == pytest.approx(1), "the stroke of / leans to the right"
    assert descriptions.slant(line)[0] == pytest.approx(-1)


def test_without_images_every_patch_is_hidden():
    training, _ = described(0.2)
    assert (Pictures(training, seen=False).batch(0, 0, 3).source_positions == EMPTY).all()
    assert Pictures(training).batch(0, 0, 3).source_positions[0].tolist() == list(range(16))


def test_patches_are_ranked_by_their_weight():
    maps = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert hiding.ranked(maps, "most").tolist() == [[1, 2, 0], [0, 2, 1]]
    assert hiding.ranked(maps, "least").tolist() == [[0, 2, 1], [1, 2, 0]]


def claims(numbers: dict, four: int) -> None:
    """Images are needed, words look at what they are about, and what is hidden matters by how it is hidden."""
    for name in ("apart", "together"):
        right, other = (np.array(numbers[name][key]) for key in ("right", "elsewhere"))
        assert (right[:, DIGIT] > 0.6).all(), name
        assert (other[:, DIGIT] < 0.2).all(), name
        for row in numbers[name]["own_row"]:
            assert row["top"][TOP] > max(0.25, row["top"][DIGIT], row["top"][BOTTOM]), name
            assert row["bottom"][BOTTOM] > max(0.25, row["bottom"][DIGIT], row["bottom"][TOP]), name
        sight, paper, empty = (
            np.array(numbers[name]["hidden"][way])[:, :, four, DIGIT] for way in (*hiding.WAYS, "empty")
        )
        assert (sight[:, MOST] + 0.05 < sight[:, ANY]).all(), name
        assert (sight[:, ANY] + 0.05 < sight[:, LEAST]).all(), name
        assert (paper[:, LEAST] < paper[:, MOST]).all(), name
        assert (empty[:, LEAST] < empty[:, MOST]).all(), name
    assert (np.array(numbers["blind"])[:, DIGIT] < 0.2).all()


def test_b11_words_look_at_what_they_are_about(found):
    claims(found, four=0)


def test_b11_the_committed_numbers_say_so_too(committed):
    claims(committed, four=2)
    assert np.shape(committed["apart"]["right"]) == (3, len(KINDS))
    assert (np.array(committed["apart"]["right"])[:, DIGIT] > 0.85).all()


def test_figures_carry_words_and_kinds():
    rng = np.random.default_rng(0)
    counts, said = len(TINY.counts), ("thin", "one", "upright", "top-light", "bottom-light")
    hidden = {way: rng.random((3, counts, 5)) for way in (*hiding.WAYS, "empty")}
    seen = digits.Seen(*rng.random((3, 5)), rng.dirichlet(np.ones(16), 5), hidden)
    shown = digits.Shown(rng.random((1, 8, 8)), [said], rng.dirichlet(np.ones(16), (1, 5)))
    drawn = draw(TINY, digits.Results(rng.random(5), rng.random((1, 5)), {"apart": [seen], "together": [seen]}, shown))
    titles = {name: [axes.get_title() for axes in figure.axes] for name, figure in drawn.items()}
    assert titles["words"][:6] == ["image", *said]
    assert titles["maps"][:5] == list(KINDS)
    assert titles["hiding"][:2] == ["apart, hidden patches are out of sight", "apart, hidden patches are white paper"]
