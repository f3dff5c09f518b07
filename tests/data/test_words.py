"""The tokenizer of words: round trips at once and one id at a time; white space that would be lost is refused."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jax_attention import data

WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Zl", "Zp", "Cc"]), min_size=1, max_size=4)
TEXT = st.lists(WORD, max_size=12).map(" ".join)


@given(TEXT)
@example("")
@example("\u200b \ufeff a a")
def test_round_trip(text):
    tokenizer = data.Words.train([text, "a"])
    assert tokenizer.vocabulary == tuple(sorted({*text.split(" "), "a"} - {""}))
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert [tokenizer.vocabulary[i] for i in ids] == (text.split(" ") if text else [])
    assert tokenizer.decode(ids) == tokenizer.decode(ids.tolist()) == text


@given(st.lists(st.integers(0, 3), max_size=12))
def test_streamed_text_is_the_whole_text_word_by_word(ids):
    tokenizer = data.Words(("Tom", "追逐", "a", "🌍"))
    stream = data.StreamDecoder(tokenizer)
    for _ in range(2):  # finish() starts a new text
        texts = [stream.push(i) for i in ids]
        assert texts == [" " * (n > 0) + tokenizer.vocabulary[i] for n, i in enumerate(ids)]
        assert stream.finish() == ""
    assert "".join(texts) == tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("text", "shown", "place"),
    [
        ("a  b", "' '", 2),
        (" a", "' '", 0),
        ("a ", "' '", 1),
        ("a\tb", r"'\\t'", 1),
        ("ab\n", r"'\\n'", 2),
        ("a\u3000b", r"'\\u3000'", 1),
        ("a \xa0b", r"'\\xa0'", 2),
        (" ", "' '", 0),
    ],
)
def test_white_space_that_would_be_lost_is_refused(text, shown, place):
    message = rf"text: expected words with single spaces .* with {shown} at index {place}\. Tidy it: ' '\.join"
    with pytest.raises(ValueError, match=message):
        data.Words(("a", "b")).encode(text)
    with pytest.raises(ValueError, match=message):
        data.Words.train([text])


def test_unknown_words_are_listed_or_replaced():
    strict, lenient = data.Words(("a", "b")), data.Words.train(["a b"], unknown="<unk>")
    message = r"vocabulary of 2, got 2 unknown: 'x', '你'; the first is word 1\. Drop them, .*or use bytes"
    with pytest.raises(ValueError, match=message):
        strict.encode("a x 你 x")
    assert lenient.vocabulary == ("<unk>", "a", "b")
    assert lenient.decode(lenient.encode("a x b 你")) == "a <unk> b <unk>"
    assert lenient.count_unknown("a x 你 x") == strict.count_unknown("a x 你 x") == 3
    assert data.Words.train(["a ?"], unknown="?").vocabulary == ("?", "a")


def test_bits_per_byte_pay_for_unknown_words():
    documents = [data.Document("a", "Tom sees Jerry")]
    complete, incomplete = data.Words.train(["Tom sees Jerry"]), data.Words.train(["Tom sees"], unknown="?")
    assert data.held_out(documents, complete, length=4).escape_bits == 0
    held_out = data.held_out(documents, incomplete, length=4)
    assert held_out.escape_bits == pytest.approx(6 * math.log2(1112064))  # five letters and the end of the word
    assert held_out.text_bytes == len(" sees Jerry")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((),), ValueError, "at least one word"),
        ((("a", "b", "a"),), ValueError, "different words, got 'a' twice"),
        ((("a", ""),), ValueError, "words without white space, got '' at index 1"),
        ((("a b",),), ValueError, "words without white space, got 'a b' at index 0"),
        ((("a\n",),), ValueError, "words without white space"),
        ((["a"],), TypeError, r"expected a tuple of words, got list\. Take tuple\(words\)"),
        (("ab",), TypeError, "expected a tuple of words, got str"),
        (((1,),), TypeError, "expected a str, got int 1"),
        ((("a",), "x"), ValueError, "one word of the vocabulary, got 'x'"),
        ((("a",), 3), TypeError, "None or a word, got int 3"),
    ],
)
def test_bad_vocabularies(arguments, error, message):
    with pytest.raises(error, match=message):
        data.Words(*arguments)


def test_wrong_texts_and_ids_are_refused():
    tokenizer = data.Words(("a", "b"))
    with pytest.raises(TypeError, match="text: expected a str, got bytes b'a'"):
        tokenizer.encode(b"a")
    with pytest.raises(TypeError, match=r"expected several texts, got one str. Pass \[text\]"):
        data.Words.train("a b")
    with pytest.raises(ValueError, match="from 0 to 1, got 2 at index 1"):
        tokenizer.decode([0, 2])


def test_a_saved_tokenizer_comes_back(tmp_path):
    tokenizer = data.Words(("b", '"', "你"), unknown="你")
    tokenizer.save(tmp_path)
    loaded = data.load_tokenizer(tmp_path)
    assert loaded == tokenizer == pickle.loads(pickle.dumps(tokenizer))
    assert isinstance(loaded, data.Words)
    assert hash(loaded) == hash(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    others = (data.Words(("b", '"', "你")), data.Words(('"', "b", "你"), unknown="你"), data.Characters('b"你', "你"))
    assert len({tokenizer.fingerprint, *(other.fingerprint for other in others)}) == 4
    (tmp_path / "settings.json").write_text(json.dumps({"format": 1, "kind": "words"}))
    with pytest.raises(ValueError, match=r"kind characters, words, bytes or subwords"):
        data.load_tokenizer(tmp_path)
