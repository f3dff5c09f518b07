"""Metrics of generated text against counting by hand."""

from __future__ import annotations

import itertools
import math
import re
import sys
import tomllib
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from jax_attention import training
from tests.house.sources import ROOT
from tests.support.tolerances import FORWARD

EXACT = {"rel": FORWARD["float64"], "abs": FORWARD["float64"]}
WORDS = st.lists(st.sampled_from("abcd"), min_size=4, max_size=9).map(" ".join)
CORPUS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4)


def ngrams(words: list[str], n: int) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


# --- Right tokens, right answers -------------------------------------------------------------------------------------


def test_token_accuracy_counts_where_the_weight_is():
    found, wanted = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[1, 2, 9], [4, 9, 9]])
    assert training.token_accuracy(found, wanted) == 0.5
    assert training.token_accuracy(found, wanted, [[1, 1, 1], [1, 0, 0]]) == 0.75
    assert training.token_accuracy(found, wanted, [1, 0, 3]) == 0.25
    assert training.token_accuracy(found, wanted, [[1], [0]]) == pytest.approx(2 / 3, **EXACT)
    assert training.token_accuracy(jnp.asarray(found), jnp.asarray(wanted), jnp.array([0.5, 0.5, 0])) == 0.75


def test_exact_match_compares_character_by_character():
    assert training.exact_match(["a b", "a b", "c"], ["a b", "a  b", ("d", "c")]) == pytest.approx(2 / 3, **EXACT)
    assert training.exact_match(["Paris"], ["paris"]) == 0


# --- BLEU ------------------------------------------------------------------------------------------------------------


def test_bleu_by_hand():
    """Of 6 words 5 match (the second "the" does not), of 5 pairs 3, of 4 triples 2, of 3 fours 1."""
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert training.bleu(["the cat sat on the mat"], ["the cat sat on a mat"]) == pytest.approx(expected, **EXACT)
    # 5 words of 7, all right and in order: only the length penalty is left
    expected = 100 * math.exp(1 - 7 / 5)
    assert training.bleu(["a b c d e"], ["a b c d e f g"], tokenize="none") == pytest.approx(expected, **EXACT)
    assert training.bleu(["a b c d"], ["e f g h"], tokenize="none") == 0
    assert training.bleu(["a b c"], ["a b c"], tokenize="none") == 0  # there are no fours


def bleu_by_counting(corpus) -> float:
    """The definition in the docstring, from Counters."""
    matches, totals, text_length, reference_length = [0] * 4, [0] * 4, 0, 0
    for text, references in corpus:
        words, others = text.split(), [reference.split() for reference in references]
        text_length += len(words)
        reference_length += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(1, 5):
            reference_ngrams = Counter()
            for other in others:
                reference_ngrams |= ngrams(other, n)
            text_ngrams = ngrams(words, n)
            totals[n - 1] += text_ngrams.total()
            matches[n - 1] += (text_ngrams & reference_ngrams).total()
    if not any(matches):
        return 0.0
    logs, unmatched = 0.0, 0
    for m, t in zip(matches, totals, strict=True):
        unmatched += m == 0
        logs += math.log(m / t if m else 1 / (2**unmatched * t))
    return 100 * min(1, math.exp(1 - reference_length / text_length)) * math.exp(logs / 4)


@given(CORPUS)
def test_bleu_equals_the_definition(corpus):
    texts, references = zip(*corpus, strict=True)
    assert training.bleu(texts, references, tokenize="none") == pytest.approx(bleu_by_counting(corpus), **EXACT)


def test_bleu_of_chinese_does_not_depend_on_spaces():
    text, reference = "汤姆追逐杰瑞。", "汤姆 追逐 小 杰瑞 。"
    spaced = training.bleu([" ".join("汤姆追逐杰瑞。")], [" ".join("汤姆追逐小杰瑞。")], tokenize="none")
    assert 0 < spaced < 100
    assert training.bleu([text], [reference], tokenize="zh") == pytest.approx(spaced, **EXACT)
    assert training.bleu([text], [reference], tokenize="char") == pytest.approx(spaced, **EXACT)
    assert training.bleu([text], [reference]) == 0


def test_bleu_separates_punctuation_by_default(caplog):
    assert training.bleu(["Tom chases Jerry."], ["Tom chases Jerry ."]) == pytest.approx(100, **EXACT)
    assert training.bleu(["Tom chases Jerry."], ["Tom chases Jerry ."], tokenize="none") == 0
    training.bleu(["a b c d ."] * 200, ["a b c d ."] * 200)
    assert caplog.records == []


# --- ROUGE -----------------------------------------------------------------------------------------------------------


def test_rouge_by_hand():
    """Of 6 and 8 words 4 agree, of 5 and 7 pairs 1; the longest common subsequence is "the gunman last"."""
    scores = training.rouge(["police kill the gunman last night"], ["The gunman was shot by police last week"])
    assert scores == pytest.approx((200 * 4 / 14, 200 * 1 / 12, 200 * 3 / 14), **EXACT)


def longest_common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, from all subsequences of both."""
    subsequences = lambda words: {  # noqa: E731
        subsequence for size in range(len(words) + 1) for subsequence in itertools.combinations(words, size)
    }
    return max(map(len, subsequences(a) & subsequences(b)))


def f1_by_counting(text: str, reference: str) -> list[float]:
    a, b = text.split(), reference.split()
    counts = [((ngrams(a, n) & ngrams(b, n)).total(), len(a) - n + 1, len(b) - n + 1) for n in (1, 2)]
    counts.append((longest_common(a, b), len(a), len(b)))
    return [200 * matches / (text_total + reference_total) for matches, text_total, reference_total in counts]


@given(CORPUS)
def test_rouge_equals_the_definition(corpus):
    texts, references = zip(*corpus, strict=True)
    expected = np.mean([np.max([f1_by_counting(text, one) for one in group], axis=0) for text, group in corpus], axis=0)
    assert training.rouge(texts, references, tokenize="spaces") == pytest.approx(tuple(expected), **EXACT)


def test_rouge_of_chinese_counts_what_rouge_score_drops():
    text, reference = "汤姆 追逐 小 杰瑞", "汤姆 追逐 杰瑞"
    scorer = RougeScorer(["rouge1"])
    assert scorer.score(reference, reference)["rouge1"].fmeasure == 0, "equal texts"
    assert scorer.score("Tom 追逐 Jerry", "Tom Jerry")["rouge1"].fmeasure == 1, "a lost word"
    words = (200 * 3 / 7, 200 * 1 / 5, 200 * 3 / 7)
    assert training.rouge([text], [reference], tokenize="spaces") == pytest.approx(words, **EXACT)
    letters = (200 * 6 / 13, 200 * 4 / 11, 200 * 6 / 13)
    assert training.rouge([text], [reference], tokenize="characters") == pytest.approx(letters, **EXACT)


def test_rouge_of_latin_text_ignores_case_and_punctuation():
    assert training.rouge(["A storm, they say."], ["a storm they say"]).rougeL == pytest.approx(100, **EXACT)
    assert training.rouge(["A storm, they say."], ["a storm they say"], tokenize="spaces").rougeL == 25


# --- Calls -----------------------------------------------------------------------------------------------------------

IDS = [[1, 2], [3, 4]]
WRONG = {
    "logits": (
        lambda: training.token_accuracy([0.5], [1]),
        TypeError,
        "predictions: expected integer ids, got float64[1].",
    ),
    "shape": (
        lambda: training.token_accuracy([1], [1, 2]),
        ValueError,
        "predictions: expected the shape of targets, (2,), got",
    ),
    "weights' shape": (
        lambda: training.token_accuracy(IDS, IDS, [1, 1, 1]),
        ValueError,
        "weights: expected a shape that broadcasts to (2, 2), got float64[3].",
    ),
    "only padding": (
        lambda: training.token_accuracy(IDS, IDS, [0, 0]),
        ValueError,
        "weights: expected finite numbers >= 0 with a positive sum, got the sum 0.0. A batch of padding alone has no",
    ),
    "negative": (lambda: training.token_accuracy(IDS, IDS, [2, -1]), ValueError, "weights: expected finite numbers >="),
    "no class": (
        lambda: training.token_accuracy(IDS, [[0, -100], [0, -1]], [[1, 1], [1, 0]]),
        ValueError,
        "targets: expected ids from 0 where the weight is not 0, got -100. Leave such targets out: weights=",
    ),
    "nan": (lambda: training.token_accuracy(IDS, IDS, [1, math.nan]), ValueError, "weights: expected finite numbers"),
    "one text": (
        lambda: training.exact_match("Paris", ["Paris"]),
        TypeError,
        "texts: expected a list of strings, got str 'Paris'. Put one text into a list: [text].",
    ),
    "nothing": (lambda: training.bleu([], []), ValueError, "texts: expected at least one text, got none."),
    "count": (
        lambda: training.bleu(["a"], ["a", "b"]),
        ValueError,
        "references: expected one for each of 1 text(s), got 2. Put several of one text into a tuple.",
    ),
    "no reference": (
        lambda: training.rouge(["a", "b"], ["a", ()]),
        ValueError,
        "references: expected at least one for text 1, got (). Leave that text out.",
    ),
    "ids": (
        lambda: training.rouge([[1, 2]], ["a"]),
        TypeError,
        "texts: expected strings, got a value of type list. Decode ids first: tokenizer.decode(ids).",
    ),
    "bleu's tokenizer": (
        lambda: training.bleu(["a"], ["a"], tokenize="ja-mecab"),
        ValueError,
        "tokenize: expected one of '13a', 'intl', 'zh', 'char', 'none', got 'ja-mecab'. The others of sacrebleu need",
    ),
    "rouge's tokenizer": (
        lambda: training.rouge(["a"], ["a"], tokenize=None),
        ValueError,
        "tokenize: expected one of 'latin', 'spaces', 'characters', got None.",
    ),
    "rouge of Chinese": (
        lambda: training.rouge(["猫"], ["猫"]),
        ValueError,
        "references: expected Latin letters for tokenize='latin', got '猫', which rouge-score drops. Pass "
        "tokenize='characters', or 'spaces' for words with spaces between them.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("function", "module", "package"),
    [("bleu", "sacrebleu", "sacrebleu"), ("rouge", "rouge_score.rouge_scorer", "rouge-score")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, function, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    message = (
        f"{function}: expected the package {package}, got none. Install it: pip install 'jax_attention[experiments]'."
    )
    with pytest.raises(ImportError, match=re.escape(message)):
        getattr(training, function)(["a"], ["a"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert package in project["optional-dependencies"]["experiments"]
