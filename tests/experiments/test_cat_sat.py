"""D1: the cat sat on the mat, in a model that was trained on other sentences."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from experiments import cat_sat
from experiments.cat_sat import HIDDEN, sentences
from experiments.cat_sat.__main__ import HERE, Options, main
from experiments.cat_sat.sentences import SENTENCE, VERB, WORDS
from experiments.learn import Schooling
from jax_attention import models
from tests.experiments.folder import drawn, left_behind, small_programs
from tests.support.tolerances import FORWARD

LEARNS = cat_sat.Config(schooling=Schooling(400, batch_size=64, learning_rate=1e-2, seeds=(0,)))
TINY = cat_sat.Config(width=8, schooling=Schooling(2, batch_size=4, seeds=(0,)))
CAT, MAT = 1, 5
KINDS = cat_sat.kinds


def run_command(config, out):
    main(Options(config=config, out=out))
    return left_behind(out, "hidden.png", "masked.png", "read.png")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The numbers of two steps of one kind on a few sentences: all that holds before anything is learned."""
    with small_programs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cat_sat, "kinds", lambda config: {"softmax": KINDS(config)["softmax"]})
        return run_command(TINY, tmp_path_factory.mktemp("cat_sat"))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The numbers of one seed."""
    return run_command(LEARNS, tmp_path_factory.mktemp("cat_sat"))


def test_the_command_leaves_numbers_and_figures(untrained):
    assert list(untrained) == ["words", "hidden", "softmax"]
    numbers = untrained["softmax"]
    assert np.shape(numbers["right"]) == np.shape(numbers["probability_of_sat"]) == (1, 1 + len(HIDDEN))
    for weights in (numbers["weights_read"], numbers["weights_masked"]):
        assert np.shape(weights) == (1, 2, 6)
        np.testing.assert_allclose(np.sum(weights, axis=-1), 1, atol=1e-5)


def test_the_sentence_and_a_seventh_of_the_pairs_are_held_out():
    training, held_out = (sentences.sentences(held_out=part) for part in (False, True))
    pairs = [{(row[CAT], row[MAT]) for row in rows.tolist()} for rows in (training, held_out)]
    assert len(training) == 1372
    assert len(held_out) == 228
    assert not pairs[0] & pairs[1]
    assert sentences.ids(SENTENCE) in held_out.tolist()
    assert set(training.ravel()) == set(range(len(WORDS))) - {WORDS.index("[mask]")}, "every word is in training"


def test_one_noun_leaves_four_verbs_and_both_leave_one():
    rows = np.concatenate([sentences.sentences(held_out=part) for part in (False, True)])
    of_cat = rows[rows[:, CAT] == WORDS.index("cat")]
    assert len(set(of_cat[:, VERB])) == 4
    assert len(set(of_cat[of_cat[:, MAT] == WORDS.index("mat")][:, VERB])) == 1


def test_one_word_of_each_sentence_is_asked_for():
    rows = sentences.sentences(held_out=False)
    batch = sentences.Cloze(rows).batch(0, 0, 512)
    assert (batch.weights.sum(-1) == 1).all()
    changed = batch.tokens != batch.targets
    assert not (changed & (batch.weights == 0)).any()
    assert 0.7 < changed.sum() / 512 < 0.9
    assert 0.5 < (batch.tokens == WORDS.index("[mask]")).sum() / 512 < 0.7


def claims(found: dict, seeds: int) -> None:
    """Cat and mat have the most of the weight and are the only words that are needed."""
    masked = np.array(found["softmax"]["weights_masked"])
    assert masked.shape == (seeds, 2, 6)
    np.testing.assert_allclose(masked.sum(-1), 1, atol=1e-5)
    mean = masked.mean(1)
    assert (np.sort(mean.argsort(-1)[:, -2:], -1) == [CAT, MAT]).all()
    assert (mean[:, CAT] + mean[:, MAT] > 0.5).all()
    for name in ("softmax", "sigmoid"):
        right = np.array(found[name]["right"])
        lost = dict(zip(HIDDEN, (right[:, 0] - right[:, 1:].T).mean(1), strict=True))
        assert (right[:, 0] > 0.9).all(), name
        assert min(lost[CAT], lost[MAT]) > 0.5 > 0.1 > max(lost[i] for i in (0, 3, 4)), name
    assert (np.array(found["alone"]["right"]) < 0.15).all()


@pytest.mark.slow
def test_d1_cat_and_mat_are_looked_at_and_needed(found):
    claims(found, seeds=1)
    ((hen, hill, near),) = found["softmax"]["instead"]
    assert near == "sat", "the preposition does not matter"
    assert "sat" not in (hen, hill), "the nouns do"


def test_d1_the_committed_numbers_say_so_too():
    numbers = json.loads((HERE / "results.json").read_text(encoding="utf-8"))["numbers"]
    claims(numbers, seeds=5)
    read = np.array(numbers["softmax"]["weights_read"]).mean(1)
    assert (np.sort(read.argsort(-1)[:, -2:], -1) == [CAT, MAT]).all()
    assert (np.array(numbers["sigmoid"]["weights_masked"]).mean(1).sum(-1) > 1).all(), "sigmoid need not sum to 1"
    assert (np.array(numbers["softmax"]["probability_of_sat"])[:, 0] > 0.99).all()


def test_the_mixed_vector_is_the_mixture_of_the_words():
    made = drawn(KINDS(TINY)["softmax"], 3)
    looked = cat_sat.looked(cat_sat.Learned(made, np.zeros(1), 0.0))

    @jax.jit
    def values(model, tokens):
        x, block = model(tokens, capture=models.Capture(hidden=(-1,))).captured.hidden[-1], model.blocks.layers()[0]
        return block.attention.project_memory(block.attention_norm(x)).value

    value = np.asarray(values(made, np.array(sentences.ids(SENTENCE))), np.float64)  # [6, heads, size]
    mixed = np.einsum("ns,snh->nh", looked.weights[1].astype(np.float64), value).astype(np.float32)
    expected = jax.jit(lambda model, mixed: model.blocks.layers()[0].attention.out(mixed))(made, mixed.reshape(-1))
    np.testing.assert_allclose(looked.mixed[1], expected, rtol=1e-4, atol=FORWARD["float32"])


def test_figures_carry_the_words():
    rng = np.random.default_rng(0)
    looked = cat_sat.Looked(rng.dirichlet(np.ones(6), (2, 2)), np.ones((2, 4)), np.ones(6), np.ones(6), ("sat",) * 3)
    figures = cat_sat.__main__.draw(TINY, {"softmax": [looked]})
    labels = [[label.get_text() for label in figure.axes[0].get_xticklabels()] for figure in figures.values()]
    assert labels[0] == ["the", "cat", "[mask]", "on", "the", "mat"]
    assert labels[1] == list(SENTENCE)
    assert labels[2] == ["the", "cat", "on", "the", "mat"]
    assert [label.get_text() for label in figures["masked"].axes[0].get_yticklabels()][-1] == "seed 0, mean"
