"""Tokenizers, corpora, token files and texts of unknown origin: refused by a short error, or bounded."""

from __future__ import annotations

import base64
import json
import struct

import pytest

from jax_attention import data
from jax_attention.data.tokenizers.growth import MAX_GROWTH, check_growth


@pytest.fixture(scope="module")
def definition():
    return json.loads(data.Subwords.train(["low lower lowest"] * 9, vocab_size=260).definition)


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
LONG_TEXT = base64.b64encode(struct.pack("<I", 4) + b"\0" * 4 + b"a\0" + b"b" * 5000 + b"\0").decode()
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}


def sequence(kind, steps):
    return {"type": "Sequence", kind: steps}


GROWING = {
    "thirty doubling normalizers": ("normalizer", sequence("normalizers", [DOUBLING] * 30)),
    "nested sequences": ("normalizer", sequence("normalizers", [sequence("normalizers", [DOUBLING] * 6)] * 2)),
    "an expression": (
        "normalizer",
        sequence("normalizers", [{"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 2000}]),
    ),
    "prepended": ("normalizer", sequence("normalizers", [{"type": "Prepend", "prepend": "a" * 2000}])),
    "a character map": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": LONG_TEXT}),
    "letters of bytes": ("normalizer", sequence("normalizers", [{"type": "ByteLevel"}] * 30)),
    "thirty doubling decoders": ("decoder", sequence("decoders", [DOUBLING] * 30)),
}


@pytest.mark.parametrize("name", GROWING)
def test_a_definition_that_multiplies_texts_is_refused(name, definition):
    field, step = GROWING[name]
    with pytest.raises(ValueError, match=f"expected a {field} that makes a text at most {MAX_GROWTH:,} times longer"):
        data.Subwords(json.dumps(definition | {field: step}))


def test_many_steps_are_refused(definition):
    steps = sequence("normalizers", [{"type": "NFC"}] * 1000)
    with pytest.raises(ValueError, match="expected at most 64 steps, got more"):
        data.Subwords(json.dumps(definition | {"normalizer": steps}))


def test_steps_of_published_tokenizers_are_accepted():
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
    charsmap = base64.b64encode(struct.pack("<I", 4) + b"\0" * 4 + b"b" * 36 + b"\0").decode()
    for normalizer in (
        sequence("normalizers", [{"type": "Prepend", "prepend": "▁"}, space]),  # Llama 2
        sequence("normalizers", [{"type": "Precompiled", "precompiled_charsmap": charsmap}, runs]),  # T5
        sequence("normalizers", [{"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")]),
        {"type": "BertNormalizer"},
        None,
    ):
        check_growth({"normalizer": normalizer, "decoder": sequence("decoders", [space, {"type": "Fuse"}])})


def test_an_expression_that_backtracks_ends_in_an_error(definition):
    tokenizer = data.Subwords(json.dumps(definition | {"pre_tokenizer": SPLIT | {"pattern": {"Regex": "(a+)+$"}}}))
    for call in (lambda: tokenizer.encode("a" * 40 + "b"), lambda: tokenizer.encode_many(["a" * 40 + "b"])):
        with pytest.raises(ValueError, match=r"got an error of the tokenizers library: .*retry-limit"):
            call()
    assert len(tokenizer.encode("low")) > 0


WRONG = {
    "deep": ('{"a":' * 100_000, "more than 64 levels of brackets"),
    "deep model": (
        '{"version": "1.0", "model": ' + "[" * 500 + "]" * 500 + "}",
        "expected the text of a tokenizer.json",
    ),
    "a list": ("[1]", "got a list, not an object"),
    "a long value": (json.dumps({"model": "a" * 10**6}), "expected the text of a tokenizer.json"),
    "nothing": ("", "expected JSON in 'tokenizer.json'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_definition_is_refused(name):
    content, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        data.Subwords(content)
    assert len(str(caught.value)) < 500


def test_ids_are_limited(definition):
    model = definition["model"] | {"vocab": definition["model"]["vocab"] | {"far": 2**31}}
    with pytest.raises(ValueError, match="expected ids below 16,777,216, got 2,147,483,648"):
        data.Subwords(json.dumps(definition | {"model": model}))


# --- Settings, corpora, token files, texts ----------------------------------------------------------------------------

SETTINGS = {
    "kind of a list": {"format": 1, "kind": ["bytes"]},
    "vocabulary of numbers": {"format": 1, "kind": "words", "vocabulary": [1, 2]},
    "vocabulary of a text": {"format": 1, "kind": "words", "vocabulary": "ab"},
    "characters of a list": {"format": 1, "kind": "characters", "vocabulary": ["a"]},
    "special tokens": {"format": 1, "kind": "subwords", "special_tokens": "yes"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_refused(name, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS[name]))
    with pytest.raises(ValueError, match="expected a tokenizer's settings"):
        data.load_tokenizer(tmp_path)


def test_long_words_are_quoted_shortly(tmp_path):
    settings = {"format": 1, "kind": "words", "vocabulary": ["a " * 10**6]}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="words without white space") as caught:
        data.load_tokenizer(tmp_path)
    assert len(str(caught.value)) < 500


SUMMARIES = {
    "bytes as text": {"train_bytes": "3"},
    "negative bytes": {"validation_bytes": -1},
    "names of numbers": {"names": [[1], []]},
    "names of one part": {"names": [[]]},
    "bits": {"escape_bits": None},
    "more": {"tokenizer": "x"},
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_of_corpora_are_refused(name, tmp_path):
    corpus = data.prepare([data.Document("a", "to be or not to be " * 50)], length=16)
    corpus.save(tmp_path)
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | SUMMARIES[name]))
    with pytest.raises(ValueError, match=r"expected the corpus\.json of a saved corpus"):
        data.open_corpus(tmp_path, corpus.tokenizer, length=16)


METADATA = {
    "another dtype": {"dtype": "object"},
    "count as text": {"count": "3"},
    "large count": {"count": 2**60},
    "documents": {"documents": None},
    "vocabulary": {"vocab_size": 2**40},
    "more": {"x": 1},
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_token_files_are_refused(name, tmp_path):
    from jax_attention.data.tokens import HEADER

    path = tmp_path / "a.tokens"
    data.write_tokens(path, [[1, 2, 3]], vocab_size=6)
    content = path.read_bytes()
    magic, offset, length, crc, ids_crc = HEADER.unpack(content[: HEADER.size])
    metadata = json.dumps(json.loads(content[offset : offset + length]) | METADATA[name]).encode()
    path.write_bytes(HEADER.pack(magic, offset, len(metadata), crc, ids_crc) + content[HEADER.size : offset] + metadata)
    with pytest.raises(ValueError, match="truncated or changed"):
        data.open_tokens(path)


def test_a_file_of_nul_bytes_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"expected text, got 1,000 NUL bytes and nothing else in .*a\.txt"):
        data.read_documents(tmp_path)
