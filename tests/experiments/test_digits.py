"""B11: words about images, where they look, and which patches they need."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments.digits import descriptions, experiment, hiding
from experiments.digits.descriptions import KINDS, WORDS, describe_digits
from experiments.digits.drawing import draw
from experiments.digits.experiment import Config, Examples, ModelResults, Results, measure_model
from experiments.digits.model import ENCODERS, ImageBatches, Sizes, train_describer
from experiments.digits.report import HERE, Options, edge_weight, main
from experiments.seed_training import TrainingConfig
from jax_attention.cache import EMPTY
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training

SHORT = Config(
    sizes=Sizes(width=32, dropout=0.0), schooling=TrainingConfig(300, learning_rate=8e-3, seeds=(0,)), counts=(4,)
)
TINY = dataclasses.replace(
    SHORT, sizes=Sizes(width=8, heads=2, dropout=0.0), schooling=TrainingConfig(2, 4, seeds=(0,)), held_out=0.002
)
DIGIT, TOP, BOTTOM = (KINDS.index(kind) for kind in ("digit", "top", "bottom"))
MOST, ANY, LEAST = range(3)


@pytest.fixture(scope="module")
def results():
    """Results of a model whose patches attend to each other, after 300 steps."""
    training, held_out = describe_digits(0.2)
    (trained,) = train_describer(SHORT.sizes, ImageBatches(training), SHORT.schooling, together=True)
    return measure_model(trained.model, held_out, SHORT)


@pytest.fixture(scope="module")
def committed():
    return json.loads((HERE / "results.json").read_text(encoding="utf-8"))["numbers"]


def test_words_are_computed_from_pixels():
    training, held_out = describe_digits(0.2)
    assert len(training.images) == 1438
    assert len(held_out.images) == 359
    words = descriptions.words_by_kind(training.words)
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
    training, _ = describe_digits(0.2)
    assert (ImageBatches(training, visible=False).batch(0, 0, 3).source_positions == EMPTY).all()
    assert ImageBatches(training).batch(0, 0, 3).source_positions[0].tolist() == list(range(16))


def test_patches_are_ranked_by_their_weight():
    maps = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])
    assert hiding.rank_patches(maps, "most").tolist() == [[1, 2, 0], [0, 2, 1]]
    assert hiding.rank_patches(maps, "least").tolist() == [[0, 2, 1], [1, 2, 0]]


def test_the_command_writes_numbers_and_figures(tmp_path, monkeypatch):
    """Two steps of one kind, measured on the last three images, for properties that need no trained model."""
    monkeypatch.delitem(ENCODERS, "together")
    monkeypatch.setattr(experiment, "SHOWN", ("eight", "nine", "eight"))
    with quick_training():
        main(Options(config=TINY, out=tmp_path))
    numbers = read_numbers(tmp_path, "hiding.png", "maps.png", "words.png")
    assert np.shape(numbers["apart"]["hidden"]["empty"]) == (1, 3, 1, len(KINDS))
    assert np.shape(numbers["blind"]) == (1, len(KINDS))


def assert_needed(right: np.ndarray, hidden: dict[str, np.ndarray]) -> None:
    """Assert that large weights matter more out of sight and less on white paper; orders are in the last axis."""
    assert (right > 0.6).all()
    sight, paper, empty = (np.array(hidden[way]) for way in (*hiding.WAYS, "empty"))
    assert (sight[..., MOST] + 0.1 < sight[..., ANY]).all()
    assert (sight[..., MOST] + 0.2 < sight[..., LEAST]).all()
    assert (paper[..., LEAST] + 0.02 < paper[..., MOST]).all()
    assert (empty[..., LEAST] + 0.1 < empty[..., MOST]).all()


@pytest.mark.slow
def test_b11_words_look_at_what_they_are_about_and_need_it(results):
    assert_needed(results.right[DIGIT], {way: shares[:, 0, DIGIT] for way, shares in results.hidden.items()})
    assert results.other_image[DIGIT] < 0.2, "the words are about this image"
    weight = edge_weight(results.maps)
    assert weight["top"][TOP] > max(0.3, weight["top"][DIGIT], weight["top"][BOTTOM])


@pytest.mark.parametrize("name", ENCODERS)
def test_b11_the_committed_numbers_hold_the_claims(committed, name):
    numbers = committed[name]
    four = {way: np.array(shares)[:, :, 2, DIGIT] for way, shares in numbers["hidden"].items()}
    right = np.array(numbers["right"])
    assert right.shape == (3, len(KINDS))
    assert_needed(right[:, DIGIT], four)
    assert (four["out of sight"][:, ANY] < four["out of sight"][:, LEAST]).all()
    assert (right > np.array(committed["blind"]) + 0.05).all(), "the image says more than the words before"
    assert (np.array(numbers["other_image"])[:, DIGIT] < 0.2).all()
    for row in numbers["edge_weight"]:
        assert row["top"][TOP] > max(0.3, row["top"][DIGIT], row["top"][BOTTOM])
        assert row["bottom"][BOTTOM] > max(0.3, row["bottom"][DIGIT], row["bottom"][TOP])


def test_figures_carry_words_and_kinds():
    rng = np.random.default_rng(0)
    counts, words = len(TINY.counts), ("thin", "one", "upright", "top-light", "bottom-light")
    hidden = {way: rng.random((3, counts, 5)) for way in (*hiding.WAYS, "empty")}
    results = ModelResults(*rng.random((3, 5)), rng.dirichlet(np.ones(16), 5), hidden)
    examples = Examples(rng.random((1, 8, 8)), [words], rng.dirichlet(np.ones(16), (1, 5)))
    figures = draw(
        TINY, Results(rng.random(5), rng.random((1, 5)), {"apart": [results], "together": [results]}, examples)
    )
    titles = {name: [axes.get_title() for axes in figure.axes] for name, figure in figures.items()}
    assert titles["words"][:6] == ["image", *words]
    assert titles["maps"][:5] == list(KINDS)
    assert titles["hiding"][:2] == ["apart, hidden patches are out of sight", "apart, hidden patches are white paper"]
