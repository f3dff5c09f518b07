"""A token file returns the tokens that were written, or the error names the damage; it appears whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import data

DOCUMENTS = st.lists(st.lists(st.integers(0, 99), max_size=9), min_size=1, max_size=6).filter(any)


@given(DOCUMENTS, st.sampled_from([100, 65536, 65537]))
def test_written_tokens_are_read_back(tmp_path_factory, documents, vocab_size):
    path = tmp_path_factory.mktemp("tokens") / "deep" / "a.tokens"
    rows = (np.array(document, np.int32) for document in documents)  # a generator is enough
    data.write_tokens(path, rows, vocab_size=vocab_size, text_bytes=7, fingerprint="f")
    tokens = data.open_tokens(path)
    assert isinstance(tokens.ids, np.memmap)
    assert tokens.ids.dtype == (np.uint16 if vocab_size <= 65536 else np.uint32)
    assert [tokens.document(i).tolist() for i in range(len(tokens))] == documents
    assert (tokens.vocab_size, tokens.text_bytes, tokens.fingerprint) == (vocab_size, 7, "f")
    with pytest.raises(ValueError, match="read-only"):
        tokens.ids[0] = 1


def test_the_largest_ids_survive(tmp_path):
    for vocab_size in (65536, 65537, 2**31):
        path = tmp_path / f"{vocab_size}"
        data.write_tokens(path, [[0, vocab_size - 1]], vocab_size=vocab_size)
        assert data.open_tokens(path).ids.tolist() == [0, vocab_size - 1]


def test_sizes_and_fingerprint_are_kept_in_the_file(tmp_path):
    documents = [data.Document("a", "héllo"), data.Document("", ""), data.Document("b", "你")]
    tokens = data.tokenize(documents, data.Bytes())
    data.write_tokens(tmp_path / "t", tokens)
    again = data.open_tokens(tmp_path / "t", data.Bytes())
    assert again.starts.tolist() == tokens.starts.tolist() == [0, 6, 6, 9]
    assert again.ids.tolist() == tokens.ids.tolist() == list("héllo你".encode())
    assert (again.text_bytes, again.vocab_size, again.fingerprint) == (9, 256, data.Bytes().fingerprint)
    with pytest.raises(ValueError, match="expected no vocab_size"):
        data.write_tokens(tmp_path / "u", tokens, vocab_size=256)


VERSION_0_1 = (
    b"jaxtoks1@\0\0\0\0\0\0\0v\0\0\0\0\0\0\0\x8a\xd6\xdc\x1b\xb0z\x95\xad"
    b"a\0b\0c\0\0\0"
    b"\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0"
    b'{"dtype": "uint16", "count": 3, "documents": 2, "vocab_size": 256, "text_bytes": 3, "fingerprint": '
    b'"296570596c16a3d7"}'
)
"""A token file of the documents "ab" and "c" as bytes, written by version 0.1."""


def test_files_of_version_0_1_are_read_and_written_alike(tmp_path):
    (tmp_path / "old").write_bytes(VERSION_0_1)
    tokens = data.open_tokens(tmp_path / "old", data.Bytes())
    assert [tokens.document(i).tolist() for i in range(len(tokens))] == [[97, 98], [99]]
    documents = [data.Document("a", "ab"), data.Document("b", "c")]
    data.write_tokens(tmp_path / "new", data.tokenize(documents, data.Bytes()))
    assert (tmp_path / "new").read_bytes() == VERSION_0_1


def test_another_tokenizer_is_refused(tmp_path):
    data.write_tokens(tmp_path / "t", data.tokenize([data.Document("a", "ab")], data.Characters("ab")))
    message = r"tokenizer: expected the one that made .* 2 tokens\), got fingerprint \w{16}, 256 tokens. Load that"
    with pytest.raises(ValueError, match=message):
        data.open_tokens(tmp_path / "t", data.Bytes())


def test_every_truncation_and_every_changed_byte_is_detected(tmp_path):
    path = tmp_path / "t"
    # 4 ids of 2 bytes need no padding, where a change would be harmless.
    data.write_tokens(path, [[1, 2, 3], [4]], vocab_size=9)
    whole = path.read_bytes()
    broken = [whole[:n] for n in range(len(whole))] + [whole + b"\0"]
    broken += [whole[:n] + bytes([whole[n] ^ 0x20]) + whole[n + 1 :] for n in range(len(whole))]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path: expected a (complete )?token file, got "):
            data.open_tokens(path)
    path.write_bytes(whole)
    assert data.open_tokens(path).ids.tolist() == [1, 2, 3, 4]


def test_without_verify_all_but_the_ids_is_checked(tmp_path):
    path = tmp_path / "t"
    data.write_tokens(path, [[1, 2, 3]], vocab_size=9)
    whole = path.read_bytes()
    path.write_bytes(whole[:32] + b"\x07" + whole[33:])
    assert data.open_tokens(path, verify=False).ids.tolist() == [7, 2, 3]
    with pytest.raises(ValueError, match="expected ids that match their checksum"):
        data.open_tokens(path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00" * 9, bytes(100)])
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ValueError, match=r"which begins with b'.*', not with b'jaxtoks1'. Write one with"):
        data.open_tokens(tmp_path / "t")


def test_a_failed_or_repeated_write_leaves_the_folder_as_it_was(tmp_path):
    def breaks():
        yield [1, 2]
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        data.write_tokens(tmp_path / "t", breaks(), vocab_size=9)
    assert list(tmp_path.iterdir()) == []
    data.write_tokens(tmp_path / "t", [[1, 2]], vocab_size=9)
    with pytest.raises(FileExistsError, match=r"expected a new file, got .*which exists"):
        data.write_tokens(tmp_path / "t", breaks(), vocab_size=9)  # refused before anything is made
    assert data.open_tokens(tmp_path / "t").ids.tolist() == [1, 2]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("documents", "vocab_size", "error", "message"),
    [
        ([[1], [9]], 9, ValueError, "ids below vocab_size 9, got 9 in document 1"),
        ([[-1]], 9, ValueError, "expected ids from 0, got -1"),
        ([[0.5]], 9, TypeError, r"one integer array \[n\] per document, got float64\[1\]"),
        ([1, 2], 9, TypeError, r"one integer array \[n\] per document, got int64\[\]"),
        ([[], []], 9, ValueError, "at least one token, got none"),
        ([[1]], None, TypeError, "vocab_size: expected a Python int"),
    ],
)
def test_bad_tokens_are_refused(tmp_path, documents, vocab_size, error, message):
    with pytest.raises(error, match=message):
        data.write_tokens(tmp_path / "t", documents, vocab_size=vocab_size)
    assert list(tmp_path.iterdir()) == []


def test_the_error_names_the_document_that_cannot_be_encoded():
    documents = [data.Document("good", "ab"), data.Document("strange.txt", "ac")]
    with pytest.raises(ValueError, match=r"document 'strange\.txt': text: .*got 1 unknown: 'c'"):
        data.tokenize(documents, data.Characters("ab"))


def test_documents_are_counted_from_zero():
    tokens = data.tokenize([data.Document("a", "ab")], data.Bytes())
    with pytest.raises(ValueError, match="expected less than the 1 documents, got 1"):
        tokens.document(1)
