"""decode(encode(text)) == text for every text, at once and one id at a time; saved tokenizers are loaded unchanged."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from jax_attention import data
from jax_attention.data.tokenizers import subwords
from tests.support.tokenizer_definitions import rewriting_decoder

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SAMPLE = "The quick brown fox, 静夜思 床前明月光, naïve café 👩‍👩‍👧 🇨🇳\r\n\t\0 end. " * 8
SUBWORDS = data.Subwords.train([SAMPLE], vocab_size=300)
LOSSLESS = {"bytes": data.Bytes(), "subwords": SUBWORDS}


def from_model(model: tokenizers.models.Model, decoder=None, pre=None, specials=()) -> data.Subwords:
    engine = tokenizers.Tokenizer(model)
    engine.decoder = decoder or tokenizers.decoders.Fuse()
    if pre:
        engine.pre_tokenizer = pre
    engine.add_special_tokens(list(specials))
    return data.Subwords(engine.to_str())


def sentencepiece_like() -> data.Subwords:
    """A tokenizer like that of Llama: a mark for spaces, and byte tokens for unknown characters."""
    words = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "▁a", "ab", "\ufffd"]
    decoders = tokenizers.decoders
    model = tokenizers.models.BPE(
        {word: i for i, word in enumerate(words)}, [("▁", "a"), ("a", "b")], unk_token="<unk>", byte_fallback=True
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return from_model(model, decoders.Sequence(steps))


def byte_level_in_a_sequence() -> data.Subwords:
    """A byte-level decoder inside a sequence: its `token_bytes` are None, and characters may be unfinished."""
    engine = tokenizers.Tokenizer.from_str(SUBWORDS.definition)
    engine.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.ByteLevel()])
    return data.Subwords(engine.to_str())


def word_pieces() -> data.Subwords:
    words = {word: i for i, word in enumerate(["[UNK]", "do", "n", "'", "t", "##o", "!"])}
    decoder = tokenizers.decoders.WordPiece(cleanup=True)
    return from_model(
        tokenizers.models.WordPiece(words, unk_token="[UNK]"), decoder, tokenizers.pre_tokenizers.Whitespace()
    )


# --- Round trip ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSLESS)
@given(TEXT)
@example("")
@example("你好世界 🌍\u200d\ufeff\x00\x1b\r\n\u2028")
@example("<|endoftext|> \ud7ff\ue000\U0010ffff")
def test_round_trip(kind, text):
    tokenizer = LOSSLESS[kind]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == tokenizer.decode(ids.tolist()) == text
    assert tokenizer.token_byte_counts[ids].sum() == tokenizer.count_bytes(text) == len(text.encode())


@given(TEXT)
@example("")
@example("\U0010ffff\0")
def test_round_trip_of_characters(text):
    tokenizer = data.Characters.train([text, "a"])
    assert tokenizer.vocabulary == "".join(sorted(set(text) | {"a"}))
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == [tokenizer.vocabulary.index(c) for c in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_byte_counts[ids].sum() == len(text.encode())


@given(st.lists(TEXT, max_size=4))
def test_several_texts_at_once_are_the_texts_one_by_one(texts):
    for tokenizer in LOSSLESS.values():
        many = tokenizer.encode_many(texts)
        assert [ids.tolist() for ids in many] == [tokenizer.encode(text).tolist() for text in texts]


@given(st.lists(st.integers(0, SUBWORDS.vocab_size - 1), max_size=40))
def test_any_ids_of_subwords_decode_as_the_library_decodes_them(ids):
    engine = tokenizers.Tokenizer.from_str(SUBWORDS.definition)
    assert SUBWORDS.decode(ids) == engine.decode(ids, skip_special_tokens=False)


# --- One id at a time ------------------------------------------------------------------------------------------------

STREAMED = {
    "characters": data.Characters("aé你🌍\ufffd"),
    "bytes": data.Bytes(),
    "subwords": SUBWORDS,
    "sentencepiece": sentencepiece_like(),
    "sequence": byte_level_in_a_sequence(),
    "wordpiece": word_pieces(),
    "rewriting": from_model(tokenizers.models.BPE({"a": 0, "c": 1}, []), rewriting_decoder()),
}


@pytest.mark.parametrize("kind", STREAMED)
@given(st.data())
def test_streamed_text_is_the_whole_text(kind, draw):
    tokenizer = STREAMED[kind]
    ids = draw.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=24))
    stream = data.StreamDecoder(tokenizer)
    for _ in range(2):  # finish() starts a new text
        assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["bytes", "subwords", "sentencepiece", "sequence"])
def test_streamed_text_never_ends_inside_a_character(kind):
    tokenizer, text = STREAMED[kind], "ab👍你 a"
    stream = data.StreamDecoder(tokenizer)
    texts = [stream.push(int(i)) for i in tokenizer.encode(text.replace(" ", "▁" if kind == "sentencepiece" else " "))]
    assert "\ufffd" not in "".join(texts)
    assert "".join(texts) + stream.finish() == text
    assert texts[0] != ""  # text is returned as soon as it is final


def test_subwords_of_these_tests_split_inside_characters():
    assert SUBWORDS.vocab_size == 300
    assert any(x.decode("utf-8", "ignore").encode() != x for x in SUBWORDS.token_bytes[256:])


def test_a_decoder_that_rewrites_text_is_not_streamed_early():
    """Two letters a become one b, also if they are two tokens; WordPiece looks at one token at a time."""
    stream, ids = data.StreamDecoder(STREAMED["rewriting"]), [1, 0, 0, 0]
    assert [stream.push(i) for i in ids] == [""] * len(ids)
    assert stream.finish() == STREAMED["rewriting"].decode(ids) == "cba"
    stream, ids = data.StreamDecoder(word_pieces()), word_pieces().encode("do n't!")
    assert [stream.push(int(i)) for i in ids] == ["do", " n", " '", " t", "!"]


def test_bad_ids_are_refused():
    stream = data.StreamDecoder(data.Bytes())
    with pytest.raises(ValueError, match="expected an id below the vocabulary size 256, got 256"):
        stream.push(256)
    with pytest.raises(TypeError, match="token: expected a Python int"):
        stream.push(np.array([1]))
    with pytest.raises(TypeError, match="tokenizer: expected a Tokenizer, got str 'bytes'"):
        data.StreamDecoder("bytes")
    for tokenizer in STREAMED.values():
        size = tokenizer.vocab_size
        with pytest.raises(
            ValueError, match=rf"from 0 to {size - 1}, got {size} at index 1. Was the model trained with"
        ):
            tokenizer.decode([0, size])
        with pytest.raises(ValueError, match="got -1 at index 0"):
            tokenizer.decode(np.array([-1]))
        with pytest.raises(ValueError, match=r"expected integers \[N\], got int64\[1,2\]. Decode one sequence"):
            tokenizer.decode(np.array([[0, 0]]))
        with pytest.raises(TypeError, match=r"expected integers \[N\], got float64\[1\]"):
            tokenizer.decode([0.5])


# --- Characters ------------------------------------------------------------------------------------------------------


def test_unknown_characters_are_listed_or_replaced():
    strict, lenient = data.Characters("abc"), data.Characters.train(["abc"], unknown="\ufffd")
    message = (
        r"vocabulary of 3, got 2 unknown: 'x' \(U\+0078\), '你' \(U\+4F60\); the first at index 1\. .*or use bytes"
    )
    with pytest.raises(ValueError, match=message):
        strict.encode("ax你x")
    assert lenient.vocabulary == "abc\ufffd"
    assert lenient.decode(lenient.encode("ax你x\U0010ffff")) == "a\ufffd\ufffd\ufffd\ufffd"
    assert lenient.count_unknown("ax你x") == 3
    assert data.Characters.train(["a?b"], unknown="?").encode("z?").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("",), ValueError, "at least one character"),
        (("aba",), ValueError, "different characters, got 'a' twice"),
        (("ab", "x"), ValueError, "one character of the vocabulary, got 'x'"),
        (("ab", "ab"), ValueError, "one character of the vocabulary, got 'ab'"),
        (("ab", 3), TypeError, "None or a character, got int 3"),
        ((["a"],), TypeError, "expected a str"),
    ],
)
def test_bad_vocabularies(arguments, error, message):
    with pytest.raises(error, match=message):
        data.Characters(*arguments)


@pytest.mark.parametrize("tokenizer", [data.Characters("ab"), data.Bytes(), SUBWORDS], ids=lambda t: t.kind)
def test_wrong_texts_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"lone surrogate U\+D800 at index 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(TypeError, match="text: expected a str, got bytes b'a'"):
        tokenizer.encode(b"a")


def test_one_string_is_no_list_of_training_texts():
    for train in (data.Characters.train, lambda texts: data.Subwords.train(texts, 300)):
        with pytest.raises(TypeError, match=r"expected several texts, got one str. Pass \[text\]"):
            train("abc")


# --- Subwords --------------------------------------------------------------------------------------------------------


def test_subwords_merge_frequent_bytes_and_training_is_deterministic():
    again = data.Subwords.train([SAMPLE], vocab_size=300)
    assert again == SUBWORDS
    assert again.fingerprint == SUBWORDS.fingerprint
    assert len(SUBWORDS.encode(SAMPLE)) < 0.6 * len(SAMPLE.encode())
    assert sorted(SUBWORDS.token_bytes[:256]) == sorted(bytes([i]) for i in range(256))
    with pytest.raises(ValueError, match="vocab_size: expected an int >= 257, got 256"):
        data.Subwords.train([SAMPLE], vocab_size=256)


def test_special_tokens_of_a_definition_are_neither_added_nor_lost():
    engine = tokenizers.Tokenizer.from_str(SUBWORDS.definition)
    engine.add_special_tokens(["<|end|>", "終"])
    engine.post_processor = tokenizers.processors.TemplateProcessing("<|end|> $A", special_tokens=[("<|end|>", 300)])
    engine.enable_truncation(4)
    engine.enable_padding(length=99)
    tokenizer = data.Subwords(engine.to_str())
    assert tokenizer.vocab_size == 302
    text = "fox<|end|>終 quick brown fox"
    ids = tokenizer.encode(text)
    assert ids.tolist().count(300) == ids.tolist().count(301) == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes[300:] == (b"<|end|>", "終".encode())


def test_special_tokens_are_decoded_also_without_byte_level():
    tokenizer = from_model(tokenizers.models.WordLevel({"a": 0}, unk_token="a"), specials=["<s>"])
    assert tokenizer.decode([1, 0]) == "<s>a"


@pytest.mark.parametrize("byte_level", [True, False])
def test_special_tokens_are_left_out_on_request(byte_level):
    """`skip_special_tokens` leaves out what the library leaves out. Other added tokens are text."""
    engine = tokenizers.Tokenizer.from_str((SUBWORDS if byte_level else sentencepiece_like()).definition)
    engine.add_special_tokens(["<s>", "終"])
    engine.add_tokens(["<added>"])
    tokenizer = data.Subwords(engine.to_str())
    first = tokenizer.vocab_size - 3
    assert tokenizer.special_ids == {first, first + 1}
    ids = [first, *tokenizer.encode("ab"), first + 1, first + 2, *tokenizer.encode("a"), first]
    assert tokenizer.decode(ids) == "<s>ab終<added>a<s>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == engine.decode(ids) == "ab<added>a"
    assert tokenizer.decode([first] * 3, skip_special_tokens=True) == ""
    stream = data.StreamDecoder(tokenizer, skip_special_tokens=True)
    assert "".join([*map(stream.push, ids), stream.finish()]) == "ab<added>a"
    for plain in (data.Bytes(), data.Characters("ab"), data.Words(("a",))):
        assert plain.special_ids == frozenset()
        assert plain.decode([0], skip_special_tokens=True) == plain.decode([0])


# --- Training subwords -----------------------------------------------------------------------------------------------


def trained_without_limit(texts, vocab_size):
    """The definition that the library trains if words may have any length."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=letters, show_progress=False)
    engine.train_from_iterator(texts, trainer)
    return engine.to_str()


def test_no_word_of_training_is_longer_than_the_limit():
    """tokenizers#497: the time of training grew with the square of the longest word, a whole text without spaces."""
    long = "静夜思床前明月光" * 500 + "a" * 5000 + " " * 3000 + "#" * 1025
    words = [word for word, _ in subwords.training_words(tokenizers).pre_tokenize_str(f"the cat {long}")]
    assert max(map(len, words)) == subwords.MAX_WORD == 1024
    assert len("".join(words)) == len(f"the cat {long}".encode())
    assert words[:2] == ["the", "Ġcat"]
    tokenizer = data.Subwords.train(["ab" * 4000], vocab_size=300)
    assert max(map(len, tokenizer.token_bytes)) <= 1024
    assert tokenizer.decode(tokenizer.encode(long)) == long


def test_texts_whose_words_are_shorter_train_the_same_tokenizer():
    """Word by word, so also texts of several scripts; the longest word here has 1,023 bytes."""
    texts = [SAMPLE, "low lower newest widest " * 9, "月" * 341, " " * 1024 + "x"]
    assert data.Subwords.train(texts, vocab_size=400).definition == trained_without_limit(texts, 400)


def test_the_size_of_a_vocabulary_with_gaps_includes_its_highest_id():
    tokenizer = from_model(tokenizers.models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    assert tokenizer.vocab_size == 8


def test_the_error_names_a_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    message = r"pip install 'jax_attention\[train\]'. Characters, Words and Bytes need nothing"
    with pytest.raises(ImportError, match=message):
        data.Subwords.train([SAMPLE], vocab_size=300)


# --- Files -----------------------------------------------------------------------------------------------------------

SAVED = [data.Characters('b\n"a你\0', "你"), data.Characters("ab"), data.Bytes(), SUBWORDS]


@pytest.mark.parametrize("tokenizer", SAVED, ids=lambda t: t.kind)
def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    folder = tmp_path / "run" / "tokenizer"
    tokenizer.save(folder)
    tokenizer.save(folder)  # saving it again changes nothing
    loaded = data.load_tokenizer(folder)
    assert type(loaded) is type(tokenizer)
    assert loaded == tokenizer == pickle.loads(pickle.dumps(tokenizer))
    assert hash(loaded) == hash(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert sorted(path.name for path in folder.iterdir()) == sorted(tokenizer.contents())


PINNED = {
    "29c8723ee56696a9": data.Characters("ab你", "你"),
    "16664b8f9cffe613": data.Words(("a", "b")),
    "296570596c16a3d7": data.Bytes(),
}
"""Tokenizers by fingerprint, a hash of their files: token files of earlier versions carry these fingerprints."""


def test_fingerprints_are_those_of_version_0_1():
    assert {tokenizer.fingerprint: tokenizer for tokenizer in PINNED.values()} == PINNED


def test_fingerprints_differ():
    assert len({tokenizer.fingerprint for tokenizer in SAVED}) == len(SAVED)


def test_another_tokenizer_is_not_overwritten(tmp_path):
    data.Characters("ab").save(tmp_path)
    for other in (data.Characters("abc"), data.Bytes(), SUBWORDS):
        with pytest.raises(
            FileExistsError, match=r"folder without another tokenizer, got .*whose settings\.json differs"
        ):
            other.save(tmp_path)
    assert data.load_tokenizer(tmp_path) == data.Characters("ab")
    assert len(list(tmp_path.iterdir())) == 1


def test_any_tokenizer_json_is_loaded(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer.from_str(SUBWORDS.definition).save(str(path))
    for place in (path, tmp_path):
        assert data.load_tokenizer(place).encode("quick").tolist() == SUBWORDS.encode("quick").tolist()


def test_other_files_are_refused(tmp_path):
    def refuse(error, message, path=tmp_path):
        with pytest.raises(error, match=message):
            data.load_tokenizer(path)

    refuse(FileNotFoundError, "does not exist", tmp_path / "none")
    refuse(FileNotFoundError, r"expected a tokenizer \(settings\.json or tokenizer\.json\), got .*has neither")
    (tmp_path / "tokenizer.json").write_text("{}")
    refuse(ValueError, r"tokenizer\.json'?: definition: expected the text of a tokenizer\.json")
    (tmp_path / "settings.json").write_text('{"kind": ')
    refuse(ValueError, "expected JSON")
    for settings in ({"kind": "bytes", "format": 2}, {"kind": "words", "format": 1}, {}, {"kind": "characters"}):
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        refuse(ValueError, "expected a tokenizer's settings")


def test_special_tokens_on_request_are_added_and_count_no_bytes(tmp_path):
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer.from_str(data.Subwords.train(["low lower"] * 9, vocab_size=260).definition)
    engine.add_special_tokens(["<s>"])
    engine.post_processor = library.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 260)])
    plain = data.Subwords(engine.to_str())
    tokenizer = data.Subwords(engine.to_str(), special_tokens=True)
    assert tokenizer.encode("low").tolist() == [260, *plain.encode("low")]
    assert [x.tolist() for x in tokenizer.encode_many(["low", ""])] == [[260, *plain.encode("low")], [260]]
    assert tokenizer.decode(tokenizer.encode("low")) == "<s>low"
    assert tokenizer.token_byte_counts[tokenizer.encode("low")].sum() == 3 == plain.token_byte_counts[260]
    tokenizer.save(tmp_path)
    assert data.load_tokenizer(tmp_path) == tokenizer != plain
    assert tokenizer.fingerprint != plain.fingerprint
    held_out = data.held_out([data.Document("a", "low lower")], tokenizer, length=4)
    assert held_out.text_bytes == 9, "the first word is predicted too"
