"""One call from text to sources: vocabulary from training text only, honest bits per byte, early errors."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

import jax_attention
from jax_attention import data
from tests.support.tolerances import FORWARD

EXACT = {"rel": FORWARD["float64"]}
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n"  # noqa: RUF001
FILES = [data.Document(f"{i}.txt", f"line {i} of the poem: {POEM}" * 3) for i in range(20)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tokenizer", ["characters", "bytes", "subwords"])
def test_training_and_validation_are_the_split_of_the_text(tokenizer, packed):
    size = 300 if tokenizer == "subwords" else None
    corpus = data.prepare(FILES, tokenizer=tokenizer, vocab_size=size, length=16, packed=packed)
    training, held_out = data.split_documents(FILES)
    assert corpus.names == (tuple(d.name for d in training), tuple(d.name for d in held_out))
    for source, documents in ((corpus.train, training), (corpus.validation, held_out)):
        assert type(source) is (data.PackedDocuments if packed else data.Windows)
        assert source.length == 16
        decoded = [corpus.tokenizer.decode(source.tokens.document(i)) for i in range(len(documents))]
        assert decoded == [document.text for document in documents]
    assert corpus.train_bytes == sum(len(d.text.encode()) for d in training)
    assert corpus.escape_bits == 0


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tokenizer", ["characters", "bytes", "subwords"])
def test_validation_bytes_are_those_of_the_predicted_tokens(tokenizer, packed):
    corpus = data.prepare(FILES, tokenizer=tokenizer, length=16, packed=packed)
    found = sum(
        corpus.tokenizer.token_bytes[batch.targets[batch.weights > 0]].sum()
        for batch in corpus.validation.evaluation_batches(4)
    )
    assert corpus.validation_bytes == found


def test_bits_per_byte_of_a_uniform_guess():
    corpus = data.prepare(FILES, tokenizer="bytes", length=16)
    assert corpus.bits_per_byte(math.log(256)) == pytest.approx(8, **EXACT)
    alphabet = data.prepare(FILES, length=16)
    bits = math.log2(alphabet.tokenizer.vocab_size) * alphabet.validation.predicted
    found = alphabet.bits_per_byte(math.log(alphabet.tokenizer.vocab_size))
    assert found == pytest.approx(bits / alphabet.validation_bytes, **EXACT)


def test_the_vocabulary_is_made_of_training_text_only():
    text = "abcdefghi" * 10 + "abcdexyex?"
    corpus = data.prepare([data.Document("a", text)], length=4)
    assert corpus.tokenizer == data.Characters("abcdefghi\ufffd", "\ufffd")
    assert corpus.escape_bits == pytest.approx(4 * math.log2(1112064), **EXACT)
    assert corpus.bits_per_byte(0.0) == pytest.approx(corpus.escape_bits / 9, **EXACT)
    assert corpus.baselines().unigram.bits_per_byte > corpus.escape_bits / 9
    assert data.prepare([data.Document("a", "abcdefghi" * 11)], length=4).tokenizer == data.Characters("abcdefghi")


def test_subwords_are_trained_on_training_text_only():
    text = "abcab " * 90 + "xyz " * 15
    corpus = data.prepare([data.Document("a", text)], tokenizer="subwords", vocab_size=270, length=4)
    assert {bytes([c]) for c in b"xyz"} == {p for p in corpus.tokenizer.pieces if set(p) & set(b"xyz")}
    assert any(len(piece) > 1 for piece in corpus.tokenizer.pieces)


@pytest.mark.parametrize("packed", [False, True])
def test_baselines_judge_what_a_model_is_judged_on(packed):
    corpus = data.prepare(FILES, tokenizer="bytes", length=16, packed=packed)
    found = corpus.baselines()
    for gram in found:
        assert gram.bits_per_byte == pytest.approx(corpus.bits_per_byte(gram.nats_per_token), **EXACT)
    assert found.bigram.bits_per_byte < found.unigram.bits_per_byte < 8


def test_a_tokenizer_can_be_brought_along(tmp_path):
    first = data.prepare(FILES, tokenizer="subwords", vocab_size=300, length=16)
    first.tokenizer.save(tmp_path)
    for choice in (first.tokenizer, tmp_path, str(tmp_path / "tokenizer.json")):
        again = data.prepare(FILES, tokenizer=choice, length=16)
        np.testing.assert_array_equal(again.train.tokens.ids, first.train.tokens.ids)


def test_paths_are_read_and_nothing_means_the_standard_library(tmp_path, monkeypatch):
    for document in FILES:
        (tmp_path / document.name).write_bytes(document.text.encode())
    wanted = data.prepare(FILES, tokenizer="bytes", length=16).names
    for paths in (tmp_path, str(tmp_path / "*.txt"), [tmp_path / document.name for document in FILES]):
        found = data.prepare(paths, tokenizer="bytes", length=16).names
        assert [sorted(part) for part in found] == [sorted(part) for part in wanted]
    monkeypatch.setattr("jax_attention.data.corpus.standard_library_corpus", lambda: FILES)
    assert data.prepare(tokenizer="bytes").names == wanted


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"tokenizer": "words"},
            FileNotFoundError,
            "'bytes', 'subwords' or the path of a tokenizer, got 'words', which",
        ),
        ({"tokenizer": 3}, TypeError, "a path or a Tokenizer, got int 3"),
        ({"vocab_size": 300}, ValueError, "expected None, as only tokenizer='subwords' .* got 300 with 'characters'"),
        ({"tokenizer": data.Bytes(), "vocab_size": 300}, ValueError, "vocab_size: expected None.* Leave it out"),
        ({"tokenizer": data.Characters("ab")}, ValueError, r"document '\d+\.txt': text: expected characters of the"),
        ({"length": 0}, ValueError, "length: expected an int >= 1, got 0"),
        ({"length": 10**6}, ValueError, r"length: expected fewer than the \d+ training tokens, got 1000000. Shorten"),
        ({"validation_fraction": 2}, ValueError, "between 0 and 1, got 2"),
    ],
)
def test_bad_choices_are_named_early(options, error, message):
    with pytest.raises(error, match=message):
        data.prepare(FILES, **options)


def test_data_is_not_imported_by_the_package_itself_and_needs_no_optional_package():
    """In one process, as most of the time goes into importing JAX."""
    code = (
        "import sys, jax_attention; print('jax_attention.data' in sys.modules)\n"
        "absent = ['tokenizers', 'flax', 'torch', 'transformers', 'grain']\n"
        "print([name for name in absent if name in sys.modules]); sys.modules.update(dict.fromkeys(absent))\n"
        "from jax_attention import data; print(data.Bytes().decode([104, 105]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n[]\nhi\n", "")
    assert "data" not in jax_attention.__all__
