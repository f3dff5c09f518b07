"""Token ids of documents, in memory or memory-mapped from a token file, which is checked when it is opened.

Layout of a token file, all numbers little-endian:

    32 bytes        magic "jaxtoks1"; offset and length of the JSON (uint64); CRC-32 of boundaries and JSON; CRC-32 of
                    the ids
    ids             uint16 or uint32, chosen by the size of the vocabulary; padded to a multiple of 8 bytes
    boundaries      int64 [documents + 1]: index of the first id of each document, and the number of ids
    JSON            dtype, count, documents, vocab_size, text_bytes, fingerprint
"""

from __future__ import annotations

import dataclasses
import functools
import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.files import new_file
from jax_attention.core.foreign_files import parse_json
from jax_attention.core.text import quote
from jax_attention.data.documents import Document
from jax_attention.data.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Int

MAGIC = b"jaxtoks1"
HEADER = struct.Struct("<8sQQII")
MAX_METADATA_BYTES = 2**20
FIELDS = {"dtype", "count", "documents", "vocab_size", "text_bytes", "fingerprint"}


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Concatenated token ids of documents, and where each document starts.

        document d = ids[starts[d] : starts[d + 1]]

    The fields are not checked; `tokenize` and `open_tokens` make valid ones.

    Args:
        ids: unsigned integers `[N]`, in memory or a memory map.
        starts: int64 `[documents + 1]`, from 0 to N.
        vocab_size: V.
        text_bytes: number of UTF-8 bytes of the text, or None if unknown.
        fingerprint: `fingerprint` of the tokenizer, or "" if unknown.

    Example:
        >>> from jax_attention import data
        >>> tokens = data.tokenize([data.Document("a", "abc"), data.Document("b", "de")], data.Bytes())
        >>> tokens.starts.tolist(), tokens.document(1).tolist(), tokens.text_bytes
        ([0, 3, 5], [100, 101], 5)
    """

    ids: np.ndarray
    starts: np.ndarray
    vocab_size: int
    text_bytes: int | None = None
    fingerprint: str = ""

    def __repr__(self) -> str:
        return f"Tokens(ids={describe_array(self.ids)}, documents={len(self)}, vocab_size={self.vocab_size})"

    def __len__(self) -> int:
        return len(self.starts) - 1

    @functools.cached_property
    def largest_id(self) -> int:
        """The largest id, at most `vocab_size - 1`; -1 if there are none. Reads all ids once."""
        return int(self.ids.max(initial=0)) if len(self.ids) else -1

    def document(self, index: int) -> Int[np.ndarray, "n"]:
        """Ids of document `index`, from 0 to `len(tokens) - 1`."""
        index = check_int("index", index, 0, "Documents count from 0.")
        fail_unless(index < len(self), f"index: expected less than the {len(self)} documents, got {index}.")
        return self.ids[self.starts[index] : self.starts[index + 1]]


def tokenize(documents: Iterable[Document], tokenizer: Tokenizer) -> Tokens:
    """Encode documents in memory, in two or four bytes per token.

        ids = encode(text_0) encode(text_1) …

    No token separates documents.

    Args:
        documents: documents to encode.
        tokenizer: tokenizer to encode them with.

    Returns:
        `Tokens`.

    Raises:
        ValueError: if a text cannot be encoded; the message names the document.

    Example:
        >>> from jax_attention import data
        >>> data.tokenize([data.Document("a", "abc")], data.Bytes())
        Tokens(ids=uint16[3], documents=1, vocab_size=256)
    """
    documents = list(documents)
    try:
        rows = tokenizer.encode_many([document.text for document in documents])
    except ValueError:  # encode one by one, so that the message names the document
        rows = [_encode(document, tokenizer) for document in documents]
    dtype = smallest_dtype(tokenizer.vocab_size)
    return Tokens(
        ids=np.concatenate([np.zeros(0, dtype), *(row.astype(dtype) for row in rows)]),
        starts=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        vocab_size=tokenizer.vocab_size,
        text_bytes=sum(tokenizer.count_bytes(document.text) for document in documents),
        fingerprint=tokenizer.fingerprint,
    )


def write_tokens(
    path: str | Path,
    documents: Tokens | Iterable[Int[np.ndarray, "n"]],
    *,
    vocab_size: int | None = None,
    text_bytes: int | None = None,
    fingerprint: str = "",
) -> None:
    """Write the ids of documents into one token file, which appears whole or not at all.

        bytes = 2 N if vocab_size <= 65536 else 4 N,        and 8 per document

    Documents are written one by one, so a generator can yield more than fits into memory. An existing file is not
    overwritten.

    Args:
        path: the new file; missing folders are created.
        documents: `Tokens`, or one integer array `[n]` per document.
        vocab_size: V; ids are 0 … V-1. Not with `Tokens`, which have it.
        text_bytes: number of UTF-8 bytes of the whole text, for bits per byte. Not with `Tokens`, which have it.
        fingerprint: `tokenizer.fingerprint`, so that `open_tokens` can refuse another tokenizer. Not with `Tokens`,
            which have it.

    Raises:
        FileExistsError: if the file exists.
        ValueError: if an id is not in the vocabulary, `vocab_size` is missing, or there is no token.
        TypeError: if a document is not an integer array `[n]`.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.tokens"
        >>> data.write_tokens(path, [[1, 2, 3], [4, 5]], vocab_size=6)
        >>> data.open_tokens(path)
        Tokens(ids=uint16[5], documents=2, vocab_size=6)

    Reference:
        nanoGPT's `train.bin` is bare uint16 ids; the sizes, checksums and fingerprint here reveal a wrong or broken
        file.
    """
    if isinstance(documents, Tokens):
        tokens = documents
        fail_unless(
            vocab_size is None and text_bytes is None and fingerprint == "",
            "documents: expected no vocab_size, text_bytes or fingerprint: Tokens have them. Leave them out.",
        )
        vocab_size, text_bytes, fingerprint = tokens.vocab_size, tokens.text_bytes, tokens.fingerprint
        documents = (tokens.document(index) for index in range(len(tokens)))
    vocab_size = check_int("vocab_size", vocab_size, 1, "It is tokenizer.vocab_size.")
    fail_unless(vocab_size <= 2**31, f"vocab_size: expected at most 2**31, as batches are int32, got {vocab_size}.")
    dtype = smallest_dtype(vocab_size)
    with new_file(Path(path)) as file:
        file.write(bytes(HEADER.size))
        starts, ids_crc = _write_ids(file, documents, vocab_size, dtype)
        metadata = {"dtype": dtype.name, "count": starts[-1], "documents": len(starts) - 1, "vocab_size": vocab_size}
        metadata |= {"text_bytes": text_bytes, "fingerprint": fingerprint}
        file.write(bytes(-file.tell() % 8))
        boundaries, metadata_json = np.array(starts, "<i8").tobytes(), json.dumps(metadata).encode()
        json_offset = file.tell() + len(boundaries)
        file.write(boundaries + metadata_json)
        file.seek(0)
        crc = zlib.crc32(boundaries + metadata_json)
        file.write(HEADER.pack(MAGIC, json_offset, len(metadata_json), crc, ids_crc))


def open_tokens(path: str | Path, tokenizer: Tokenizer | None = None, *, verify: bool = True) -> Tokens:
    """Open a token file as a memory map, after a check that it is complete and unchanged.

        Tokens(ids=memory map [N], starts, vocab_size, text_bytes, fingerprint)

    Args:
        path: a file that `write_tokens` wrote.
        tokenizer: if not None, a file with another fingerprint is refused.
        verify: whether to read all ids once and compare their checksum, at about a gigabyte per second. Everything
            else is always checked.

    Returns:
        `Tokens` whose `ids` are a read-only memory map.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a token file, is truncated or changed, or was made with another tokenizer.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.tokens"
        >>> data.write_tokens(path, data.tokenize([data.Document("a", "abc")], data.Bytes()))
        >>> data.open_tokens(path, data.Bytes()).ids.tolist()
        [97, 98, 99]
    """
    path = Path(path)
    metadata, starts, ids_crc = _read_metadata(path)
    ids = np.memmap(
        path, np.dtype(metadata["dtype"]).newbyteorder("<"), "r", offset=HEADER.size, shape=(metadata["count"],)
    )
    if verify and zlib.crc32(ids) != ids_crc:
        raise ValueError(_broken_file_message(path, "ids that match their checksum", "different ids"))
    if tokenizer is not None and tokenizer.fingerprint != metadata["fingerprint"]:
        raise ValueError(
            f"tokenizer: expected the one that made {str(path)!r} (fingerprint {metadata['fingerprint'] or 'unknown'}, "
            f"{metadata['vocab_size']} tokens), got fingerprint {tokenizer.fingerprint}, {tokenizer.vocab_size} "
            "tokens. Load that tokenizer, or write the tokens again."
        )
    return Tokens(ids, starts, metadata["vocab_size"], metadata["text_bytes"], metadata["fingerprint"])


def as_tokens(name: str, x: Any) -> Tokens:
    """Convert to `Tokens`: one integer array is one document, a sequence of arrays is one document each."""
    if isinstance(x, Tokens):
        return x
    arrays = [x] if hasattr(x, "dtype") else list(x)
    arrays = [_check_ids(name, array) for array in arrays]
    ids = arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, np.int32), *arrays])
    return Tokens(ids, np.cumsum([0, *map(len, arrays)], dtype=np.int64), 1 + int(ids.max(initial=0)))


def smallest_dtype(vocab_size: int) -> np.dtype:
    """Data type of ids in a file: uint16 if every id fits, otherwise uint32."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def _encode(document: Document, tokenizer: Tokenizer) -> Int[np.ndarray, "n"]:
    try:
        return tokenizer.encode(document.text)
    except ValueError as error:
        raise ValueError(f"document {document.name!r}: {error}") from None


def _check_ids(name: str, x: Any) -> Int[np.ndarray, "n"]:
    array = np.asarray(x)
    fail_unless(
        array.ndim == 1 and (np.issubdtype(array.dtype, np.integer) or array.size == 0),
        f"{name}: expected one integer array [n] per document, got {describe_array(array)}. One document is [ids].",
        TypeError,
    )
    array = array if array.size else np.zeros(0, np.int32)
    fail_unless(array.min(initial=0) >= 0, f"{name}: expected ids from 0, got {array.min(initial=0)}.")
    return array


def _write_ids(file: BinaryIO, documents: Iterable, vocab_size: int, dtype: np.dtype) -> tuple[list[int], int]:
    """Write ids one document at a time; returns where documents start, and the checksum of all ids."""
    starts, crc = [0], 0
    for index, document in enumerate(documents):
        array = _check_ids("documents", document)
        fail_unless(
            array.max(initial=0) < vocab_size,
            f"documents: expected ids below vocab_size {vocab_size}, got {array.max(initial=0)} in document {index}.",
        )
        content = array.astype(dtype.newbyteorder("<")).tobytes()
        crc = zlib.crc32(content, crc)
        file.write(content)
        starts.append(starts[-1] + len(array))
    fail_unless(starts[-1] > 0, "documents: expected at least one token, got none. Is the text empty?")
    return starts, crc


def _read_metadata(path: Path) -> tuple[dict, Int[np.ndarray, "documents+1"], int]:
    """Read and check all but the ids: the JSON, the document boundaries, and the checksum that the ids must have."""
    if not path.is_file():
        raise FileNotFoundError(
            f"path: expected a token file, got {str(path)!r}, which is no file. Write it: write_tokens."
        )
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            raise ValueError(
                f"path: expected a token file, got {str(path)!r}, which begins with {header[:8]!r}, not with "
                f"{MAGIC!r}. Write one with data.write_tokens."
            )
        _, json_offset, length, crc, ids_crc = HEADER.unpack(header)
        if size != json_offset + length:
            raise ValueError(_broken_file_message(path, f"{json_offset + length} bytes", f"{size}"))
        if length > MAX_METADATA_BYTES:
            raise ValueError(_broken_file_message(path, f"at most {MAX_METADATA_BYTES} bytes of JSON", f"{length}"))
        file.seek(json_offset)
        metadata_json = file.read(length)
        try:
            metadata = parse_json(metadata_json, str(path))
        except ValueError:
            raise ValueError(_broken_file_message(path, "readable metadata", "unreadable bytes")) from None
        if not _is_metadata(metadata):
            raise ValueError(_broken_file_message(path, "readable metadata", quote(metadata)))
        count = metadata["count"]
        boundaries_offset = HEADER.size + _padded_size(count, metadata["dtype"])
        file.seek(min(boundaries_offset, json_offset))
        boundaries = file.read(max(json_offset - boundaries_offset, 0))
    starts = np.frombuffer(boundaries, "<i8") if len(boundaries) % 8 == 0 else np.zeros(0, np.int64)
    consistent = len(starts) == metadata["documents"] + 1 and starts[0] == 0 and starts[-1] == count
    consistent = consistent and bool((np.diff(starts) >= 0).all())
    if not consistent or zlib.crc32(boundaries + metadata_json) != crc:
        raise ValueError(_broken_file_message(path, "metadata that match their checksum", "different ones"))
    return metadata, starts.astype(np.int64), ids_crc


def _is_metadata(metadata: dict[str, Any]) -> bool:
    """Whether the JSON has the fields of a token file, each of its type."""
    text_bytes = metadata.get("text_bytes")
    return (
        metadata.keys() == FIELDS
        and metadata["dtype"] in ("uint16", "uint32")
        and all(type(metadata[name]) is int and metadata[name] >= 0 for name in ("count", "documents"))
        and type(metadata["vocab_size"]) is int
        and 1 <= metadata["vocab_size"] <= 2**31
        and (text_bytes is None or (type(text_bytes) is int and text_bytes >= 0))
        and isinstance(metadata["fingerprint"], str)
    )


def _padded_size(count: int, dtype: str) -> int:
    """Bytes of `count` ids, rounded up to a multiple of 8 so that the int64 boundaries after them are aligned."""
    return -(-count * np.dtype(dtype).itemsize // 8) * 8


def _broken_file_message(path: Path, expected: str, got: str) -> str:
    return (
        f"path: expected a complete token file, got {str(path)!r}, which is truncated or changed: expected {expected}, "
        f"got {got}. Write it again."
    )
