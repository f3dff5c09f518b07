"""B8, B9, B10, E7: translation without and with attention, alignment, and quality by length."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import measure
from experiments.seed_training import TrainingConfig, train_seeds
from experiments.seq2seq_models import TRANSFORMER, Sizes, seq2seq_model
from experiments.translation import Config, alignment
from experiments.translation.corpus import (
    SHOWN,
    Corpus,
    grammar_corpus,
    mean_displacement,
    most_frequent_words,
    split_words,
)
from experiments.translation.drawing import COLOURS, PANELS, draw
from experiments.translation.experiment import ModelResults, bleu, evaluate_model, exact_match
from experiments.translation.report import HERE, Options, main, make_corpus, result_numbers
from jax_attention import data
from tests.experiments.outputs import read_numbers
from tests.experiments.quick_training import quick_training

SHORT = Config(
    names=("no attention", "dot"),
    sentences=1500,
    words=(3, 6),
    lengths=(3, 6, 9),
    each=30,
    width=48,
    multiple=16,
    schooling=TrainingConfig(steps=300, learning_rate=1e-2, seeds=(0, 1)),
    rounds=2,
)
TINY = replace(
    SHORT,
    names=("dot",),
    sentences=20,
    each=2,
    width=8,
    schooling=TrainingConfig(steps=2, batch_size=4, seeds=(0, 1)),
    rounds=1,
)


def run_command(config, out):
    main(Options(config=config, out=out))
    return read_numbers(out, "bleu.png")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Numbers after two steps on a few sentences, for properties that need no trained model."""
    with quick_training():
        return run_command(TINY, tmp_path_factory.mktemp("translation"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return run_command(SHORT, tmp_path_factory.mktemp("translation"))


@pytest.fixture(scope="module")
def committed():
    return json.loads((HERE / "results.json").read_text(encoding="utf-8"))


def test_the_command_writes_numbers_and_a_figure(tiny_run):
    numbers = tiny_run["dot"]
    assert np.shape(numbers["bleu"]) == np.shape(numbers["exact"]) == (2, 3)
    assert len(numbers["shown_translations"]) == len(numbers["last_loss"]) == 2
    assert (numbers["cost"]["time"], numbers["cost"]["mib"] > 0) == (1, True)
    maps = np.array(numbers["map"])
    assert maps.shape == (2, 1, 3, 3), "seeds, layers, words of Tom chases Jerry in both languages"
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert np.shape(numbers["agreement"]) == (2, 1, 3)


@pytest.mark.slow
def test_b8_b9_b10_length_costs_more_without_attention(numbers):
    """Without attention three words are nearly as good; six, the longest in training, and nine are far worse."""
    plain, dot = (np.array(numbers[name]["bleu"]) for name in SHORT.names)
    assert plain.shape == dot.shape == (2, 3)
    assert (dot.min(axis=0) > plain.max(axis=0)).all(), (plain, dot)
    assert plain[:, 0].min() > 60, "one vector is enough for three words"
    falls = [scores[:, 0] - scores[:, 1] for scores in (plain, dot)]
    assert falls[0].min() > falls[1].max() + 15, (plain, dot)
    assert dot[:, 2].min() > plain[:, 2].max() + 10, (plain, dot)
    assert numbers["no attention"]["parameters"] == numbers["dot"]["parameters"]


@pytest.mark.slow
def test_costs_are_relative_to_the_model_without_attention(numbers):
    plain, dot = (numbers[name]["cost"] for name in SHORT.names)
    assert plain["time"] == 1
    assert dot["time"] > 0
    assert 0 < plain["mib"] < dot["mib"]


@pytest.mark.slow
def test_b9_the_alignment_is_learned(numbers):
    (maps,) = np.array(numbers["dot"]["map"]).transpose(1, 0, 2, 3)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    assert np.array(numbers["dot"]["agreement"])[..., :2].mean() > 0.6
    assert maps.argmax(-1).tolist() == [[0, 1, 2]] * 2, "Tom for 汤姆, chases for 追逐, Jerry for 杰瑞"
    assert numbers["dot"]["shown_translations"] == [SHOWN.target] * 2
    assert "map" not in numbers["no attention"]


@pytest.mark.slow
def test_e7_a_transformer_translates_them_too(numbers):
    corpus = grammar_corpus(SHORT.sentences, SHORT.words, SHORT.lengths, SHORT.each)
    words = corpus.source.vocab_size, corpus.target.vocab_size
    create = seq2seq_model(TRANSFORMER, *words, Sizes(width=32, depth=1), corpus.longest)
    config = TrainingConfig(steps=400, learning_rate=5e-3, seeds=(0,))
    results = evaluate_model(TRANSFORMER, corpus, train_seeds(create, corpus.batches(8), config))
    short, long, _ = results.bleu[0]
    assert short > 80
    assert long > np.max(numbers["no attention"]["bleu"], axis=0)[1]
    assert results.agreements[..., :2].min() > 0.5


def test_b10_length_costs_more_without_attention_in_the_committed_results(committed):
    lengths = committed["config"]["lengths"]
    inside = lengths.index(committed["config"]["words"][1])
    scores = {name: np.array(committed["numbers"][name]["bleu"]) for name in committed["config"]["names"]}
    for name in ("dot", "scaled dot", "cosine, scale 10", "general", "additive", "additive, plain sum", "Transformer"):
        fall, plain = (
            scores[name][:, 0] - scores[name][:, inside],
            scores["no attention"][:, 0] - scores["no attention"][:, inside],
        )
        assert fall.max() < plain.min(), name
        better = scores[name].min(axis=0) > scores["no attention"].max(axis=0)
        assert better[1:].all(), name  # four words fit into one vector
    assert len(committed["seeds"]) >= 3


def test_c1_the_scale_decides_about_the_cosine(committed):
    scores = {name: np.array(committed["numbers"][name]["bleu"]).mean(axis=0) for name in committed["config"]["names"]}
    flat, plain, sharp = (scores[name][4] for name in ("cosine / sqrt(d)", "cosine", "cosine, scale 10"))
    assert committed["config"]["lengths"][4] == 12
    assert flat < scores["no attention"][4] < flat + 10
    assert flat + 20 < plain < sharp - 20
    weights = np.array(committed["numbers"]["cosine / sqrt(d)"]["map"])
    assert weights.max() < np.exp(2 / 96**0.5) * weights.min(), "no weight is more than 1.23 times another"


def test_b2_the_vector_of_the_additive_score_changes_little(committed):
    vector, plain = (
        np.array(committed["numbers"][name]["bleu"]).mean(axis=0) for name in ("additive", "additive, plain sum")
    )
    assert np.abs(vector - plain).max() < 5
    assert np.abs(vector - plain)[:6].max() < 1


def test_b9_the_concat_rule_without_tanh_cannot_align(committed):
    maps = np.array(committed["numbers"]["concat"]["map"])
    np.testing.assert_allclose(maps, np.broadcast_to(maps[:, :, :1], maps.shape), atol=1e-4)
    assert np.mean(committed["numbers"]["concat"]["bleu"]) < np.mean(committed["numbers"]["no attention"]["bleu"]) + 1


def test_b9_tom_chases_jerry_in_the_committed_results(committed):
    for name in ("dot", "general", "additive", "additive, plain sum"):
        result = committed["numbers"][name]
        assert result["shown_translations"] == [SHOWN.target] * len(committed["seeds"])
        for (weights,) in result["map"]:
            tom, _, jerry = np.argmax(weights, axis=-1)
            assert (tom, jerry) == (0, 2), name


def test_b10_attention_is_better_on_real_sentences_too():
    """The file is not part of the library, so only numbers are committed."""
    results = json.loads((HERE / "tatoeba.json").read_text(encoding="utf-8"))
    assert "--pairs" in results["command"]
    numbers = results["numbers"]
    scores = {name: np.array(numbers[name]["bleu"]).mean(axis=0) for name in results["config"]["names"]}
    assert (scores["dot"] > scores["no attention"] + 1).all()
    assert numbers["test_sentences"].keys() == {str(n) for n in range(3, 15)}
    assert not any({"shown_translations", "map"} & numbers[name].keys() for name in scores)


def test_no_test_sentence_is_in_the_training_set():
    corpus = grammar_corpus(SHORT.sentences, SHORT.words, SHORT.lengths, SHORT.each)
    known = {fact for pair in corpus.training for fact in pair.note.split("; ")}
    for n, pairs in corpus.tests.items():
        assert {len(pair.source.split()) for pair in pairs} == {n}
        assert not known & {fact for pair in pairs for fact in pair.note.split("; ")}
    assert all(pair.source != SHOWN.source for pair in corpus.training)
    assert corpus.shown[0] == SHOWN
    assert mean_displacement(corpus.shown[1]) == max(
        mean_displacement(pair) for n in (3, 6) for pair in corpus.tests[n]
    )


def test_agreement_counts_only_words_that_translate_one(monkeypatch):
    pair = data.Pair("a b c", "x y z w", (2, -1, 0, 1))
    corpus = Corpus([], {3: [pair], 4: [pair]}, None, None, ())
    weights = np.eye(3)[[2, 0, 0, 0, 1]]  # right, not counted, right, wrong, the stop
    monkeypatch.setattr(
        alignment, "attention_maps", lambda *_: np.stack([[weights] * 2, [np.eye(3)[[2, 2, 0, 1, 1]]] * 2])
    )
    np.testing.assert_allclose(alignment.agreement(None, corpus), [[2 / 3, 2 / 3], [1, 1]])


def test_sentences_of_a_file_are_split_and_longer_ones_are_tests(tmp_path):
    assert split_words("Don't go, Tom!") == "don't go , tom !"
    assert split_words("他说：OK。") == "他 说 ： ok 。"  # noqa: RUF001
    assert most_frequent_words(["b a", "b c"], 2) == ("a", "b")
    path = tmp_path / "pairs.tsv"
    lines = [f"word{i} is {'very ' * (i % 6)}good\tmot{i} est {'tres ' * (i % 6)}bon" for i in range(200)]
    path.write_text("\n".join(lines), encoding="utf-8")
    corpus = make_corpus(Config(words=(3, 5), lengths=(7,), vocabulary=20), path)
    assert {len(pair.source.split()) for pair in corpus.training} == {3, 4, 5}
    assert set(corpus.tests) == {3, 4, 5, 6, 7}
    sources = {pair.source for pair in corpus.training}
    assert not sources & {pair.source for pairs in corpus.tests.values() for pair in pairs}
    assert corpus.source.vocab_size == corpus.target.vocab_size == 20
    assert corpus.target.decode(corpus.target.encode("mot7 est bon")).split()[1:] == ["est", "bon"]
    assert len(corpus.shown) == 1
    assert not corpus.generated


def test_sentences_of_a_file_are_not_saved():
    """They may be under copyright."""
    pair = data.Pair("one two three", "un deux trois")
    corpus = Corpus([pair], {3: [pair]}, data.Words(("one",)), data.Words(("un",)), (pair,))
    scores, maps = np.ones((1, 1)), [np.ones((1, 1, 3, 3))]
    result = ModelResults(7, np.ones((1, 30)), scores, scores, ["un deux"], maps, None, measure.Cost(1.0, 2.0))
    numbers = result_numbers(corpus, {"dot": result})
    assert numbers["training_pairs"] == 1
    assert sorted(numbers["dot"]) == ["bleu", "cost", "exact", "last_loss", "parameters"]
    assert "deux" not in str(numbers)


@pytest.mark.parametrize("words", [(30, 40), (3, 5)])
def test_a_file_of_other_lengths_is_refused(tmp_path, words):
    path = tmp_path / "pairs.tsv"
    count = 14 if words[0] == 3 else 4
    path.write_text("\n".join(f"{'word ' * count}{i}\tmot {i}" for i in range(100)), encoding="utf-8")
    with pytest.raises(
        ValueError, match=rf"words: expected sentences of {words[0]} to {words[1]} words.*--config.words"
    ):
        make_corpus(Config(words=words, lengths=(20,)), path)


def test_a_file_that_leaves_nothing_to_hold_out_is_refused(tmp_path):
    far = [data.Pair(f"{'word ' * 14}{i}", f"mot {i}") for i in range(100)]
    short = (data.Pair(f"one two three {i}", f"un {i}") for i in range(100))
    near = next(pair for pair in short if pair in data.split_pairs([pair, *far])[0])
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(f"{pair.source}\t{pair.target}" for pair in (near, *far)), encoding="utf-8")
    with pytest.raises(ValueError, match=r"to train on and to hold out, got 1 and 0 in pairs\.tsv"):
        make_corpus(Config(words=(3, 5), lengths=(20,)), path)


def test_bleu_splits_chinese_into_characters():
    chinese, french = [data.Pair("", "他 抓 鱼 吃 饭")], [data.Pair("", "il mange une pomme rouge")]
    assert bleu(["他抓鱼 吃饭"], chinese) == bleu(["他 抓 鱼 吃 饭"], chinese) == pytest.approx(100)
    assert bleu(["il mange une pomme verte"], french) < 100
    assert exact_match(["il mange une pomme rouge", "x"], french * 2) == 0.5


def test_committed_figures_are_those_of_the_command():
    corpus = grammar_corpus(50, (3, 4), (3, 4), 2)
    maps = [np.full((1, 1, len(pair.target.split()), len(pair.source.split())), 0.2) for pair in corpus.shown]
    result = ModelResults(7, np.ones((1, 30)), np.ones((1, 2)), np.ones((1, 2)), [""], maps, np.ones((1, 1, 2)))
    figures = draw(Config(), corpus, dict.fromkeys(Config().names, result))
    assert sorted(path.name for path in HERE.glob("*.png")) == sorted(f"{name}.png" for name in figures)
    assert [axes.get_title() for axes in figures["bleu"].axes] == list(PANELS)
    assert {name for names in PANELS.values() for name in names} == set(Config().names) == set(COLOURS)
