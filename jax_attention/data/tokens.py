"""The token ids of documents, in memory or memory-mapped from a file that is checked when it is opened.

A token file, all numbers little-endian:

    32 bytes        magic "jaxtoks1", place and length of the JSON (uint64), CRC-32 of boundaries and JSON, that of ids
    ids             uint16 or uint32, chosen by the size of the vocabulary; pad_rows to 8 bytes
    boundaries      int64 [documents + 1]: where each document begins, and the end
    JSON            dtype, count, documents, vocab_size, text_bytes, fingerprint
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.files import new_file
from jax_attention.data.documents import Document
from jax_attention.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Int

MAGIC = b"jaxtoks1"
HEAD = struct.Struct("<8sQQII")
FIELDS = {"dtype", "count", "documents", "vocab_size", "text_bytes", "fingerprint"}


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """The ids of documents, one behind the other.

        document d = ids[starts[d] : starts[d + 1]]

    Args:
        ids: unsigned `[N]`, in memory or a memory map.
        starts: int64 `[documents + 1]`, from 0 to N.
        vocab_size: V.
        text_bytes: how many UTF-8 bytes the text has; None if nobody said.
        fingerprint: of the tokenizer; "" if nobody said.

    Returns:
        A frozen dataclass.

    Raises:
        Nothing; `tokenize` and `open_tokens` make sound ones.

    Example:
        >>> from jax_attention import data
        >>> tokens = data.tokenize([data.Document("a", "abc"), data.Document("b", "de")], data.Bytes())
        >>> tokens.starts.tolist(), tokens.document(1).tolist(), tokens.text_bytes
        ([0, 3, 5], [100, 101], 5)

    Reference:
        See `write_tokens`.
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

    def document(self, index: int) -> Int[np.ndarray, "n"]:
        """The ids of one document, from 0 to `len(tokens) - 1`."""
        index = check_int("index", index, 0, "Documents count from 0.")
        fail_unless(index < len(self), f"index: expected less than the {len(self)} documents, got {index}.")
        return self.ids[self.starts[index] : self.starts[index + 1]]


def tokenize(documents: Iterable[Document], tokenizer: Tokenizer) -> Tokens:
    """The ids of documents, in memory: two or four bytes per token.

        ids = encode(text_0) encode(text_1) …

    Nothing is put between documents.

    Args:
        documents: with names and texts.
        tokenizer: makes the ids.

    Returns:
        `Tokens`.

    Raises:
        ValueError: if a text cannot be encoded; the message names the document.

    Example:
        >>> from jax_attention import data
        >>> data.tokenize([data.Document("a", "abc")], data.Bytes())
        Tokens(ids=uint16[3], documents=1, vocab_size=256)

    Reference:
        See `Tokens`.
    """
    documents = list(documents)
    try:
        rows = tokenizer.encode_many([document.text for document in documents])
    except ValueError:
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
    """Write the ids of documents into one file, which appears whole or not at all.

        bytes = 2 N if vocab_size <= 65536 else 4 N,        and 8 per document

    Documents are written as they come, so a generator can write more than fits into memory. A file that exists is not
    replaced.

    Args:
        path: the new file; its folder is made if need be.
        documents: `Tokens`, or one integer array `[n]` per document.
        vocab_size: V; ids are 0 … V-1. `Tokens` know it.
        text_bytes: how many UTF-8 bytes the whole text has, for bits per byte. `Tokens` know it.
        fingerprint: `tokenizer.fingerprint`, so that `open_tokens` can refuse another tokenizer. `Tokens` know it.

    Returns:
        None.

    Raises:
        FileExistsError: if there is a file already.
        ValueError: if an id is not in the vocabulary, `vocab_size` is missing, or there is no token at all.
        TypeError: if a document is not an integer array `[n]`.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.tokens"
        >>> data.write_tokens(path, [[1, 2, 3], [4, 5]], vocab_size=6)
        >>> data.open_tokens(path)
        Tokens(ids=uint16[5], documents=2, vocab_size=6)

    Reference:
        nanoGPT keeps bare uint16 numbers in `train.bin`; this adds what is needed to notice a wrong or broken file.
    """
    if isinstance(documents, Tokens):
        known = documents
        fail_unless(
            vocab_size is None and text_bytes is None and fingerprint == "",
            "documents: expected no vocab_size, text_bytes or fingerprint beside Tokens, got some. Tokens know them.",
        )
        vocab_size, text_bytes, fingerprint = known.vocab_size, known.text_bytes, known.fingerprint
        documents = (known.document(index) for index in range(len(known)))
    vocab_size = check_int("vocab_size", vocab_size, 1, "It is tokenizer.vocab_size.")
    fail_unless(vocab_size <= 2**31, f"vocab_size: expected at most 2**31, as batches are int32, got {vocab_size}.")
    dtype = smallest_dtype(vocab_size)
    with new_file(Path(path)) as file:
        file.write(bytes(HEAD.size))
        starts, crc = _write_ids(file, documents, vocab_size, dtype)
        facts = {"dtype": dtype.name, "count": starts[-1], "documents": len(starts) - 1, "vocab_size": vocab_size}
        facts |= {"text_bytes": text_bytes, "fingerprint": fingerprint}
        file.write(bytes(-file.tell() % 8))
        boundaries, note = np.array(starts, "<i8").tobytes(), json.dumps(facts).encode()
        place = file.tell() + len(boundaries)
        file.write(boundaries + note)
        file.seek(0)
        file.write(HEAD.pack(MAGIC, place, len(note), zlib.crc32(boundaries + note), crc))


def open_tokens(path: str | Path, tokenizer: Tokenizer | None = None, *, verify: bool = True) -> Tokens:
    """Open a token file without reading it into memory, and check that it is whole.

        Tokens(ids=memory map [N], starts, vocab_size, text_bytes, fingerprint)

    Args:
        path: what `write_tokens` wrote.
        tokenizer: if given, the file must have been made by an equal one.
        verify: read all ids once to compare their checksum, a gigabyte per second or so. The rest is always checked.

    Returns:
        `Tokens` whose `ids` are a read-only memory map.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a token file, is cut off or changed, or belongs to another tokenizer.

    Example:
        >>> import pathlib, tempfile
        >>> from jax_attention import data
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.tokens"
        >>> data.write_tokens(path, data.tokenize([data.Document("a", "abc")], data.Bytes()))
        >>> data.open_tokens(path, data.Bytes()).ids.tolist()
        [97, 98, 99]

    Reference:
        See `write_tokens`.
    """
    path = Path(path)
    facts, starts, crc = _read_facts(path)
    ids = np.memmap(path, np.dtype(facts["dtype"]).newbyteorder("<"), "r", offset=HEAD.size, shape=(facts["count"],))
    if verify and zlib.crc32(ids) != crc:
        raise ValueError(_broken(path, "ids that fit their checksum", "others"))
    if tokenizer is not None and tokenizer.fingerprint != facts["fingerprint"]:
        raise ValueError(
            f"tokenizer: expected the one that made {str(path)!r} (fingerprint {facts['fingerprint'] or 'not noted'}, "
            f"{facts['vocab_size']} tokens), got fingerprint {tokenizer.fingerprint}, {tokenizer.vocab_size} tokens. "
            "Load that tokenizer, or write the tokens again."
        )
    return Tokens(ids, starts, facts["vocab_size"], facts["text_bytes"], facts["fingerprint"])


def as_tokens(name: str, x: Any) -> Tokens:
    """`Tokens` as they are; one integer array is one document, a sequence of arrays is several."""
    if isinstance(x, Tokens):
        return x
    arrays = [x] if hasattr(x, "dtype") else list(x)
    arrays = [_check_ids(name, array) for array in arrays]
    ids = arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(0, np.int32), *arrays])
    return Tokens(ids, np.cumsum([0, *map(len, arrays)], dtype=np.int64), 1 + int(ids.max(initial=0)))


def smallest_dtype(vocab_size: int) -> np.dtype:
    """uint16 if it holds every id, or else uint32."""
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
    """Where documents start, and the checksum of the ids."""
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


def _read_facts(path: Path) -> tuple[dict, Int[np.ndarray, "documents+1"], int]:
    """The JSON, the boundaries, and the checksum of the ids; everything but the ids themselves is checked here."""
    if not path.is_file():
        raise FileNotFoundError(
            f"path: expected a token file, got {str(path)!r}, which is none. Write it: write_tokens."
        )
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size or not head.startswith(MAGIC):
            raise ValueError(
                f"path: expected a token file, got {str(path)!r}, which begins with {head[:8]!r}, not with {MAGIC!r}. "
                "Write one with data.write_tokens."
            )
        _, place, length, crc, ids_crc = HEAD.unpack(head)
        if size != place + length:
            raise ValueError(_broken(path, f"{place + length} bytes", f"{size}"))
        file.seek(place)
        note = file.read(length)
        try:
            facts = json.loads(note)
            count, boundaries_at = facts["count"], HEAD.size + _padded(facts["count"], facts["dtype"])
            file.seek(boundaries_at)
            boundaries = file.read(place - boundaries_at)
        except (ValueError, KeyError, TypeError):
            raise ValueError(_broken(path, "a description that can be read", "another")) from None
    starts = np.frombuffer(boundaries, "<i8") if len(boundaries) % 8 == 0 else np.zeros(0, np.int64)
    sound = facts.keys() == FIELDS and len(starts) == facts["documents"] + 1 and starts[-1] == count
    if not sound or zlib.crc32(boundaries + note) != crc:
        raise ValueError(_broken(path, "a description that fits its checksum", "another"))
    return facts, starts.astype(np.int64), ids_crc


def _padded(count: int, dtype: str) -> int:
    return -(-count * np.dtype(dtype).itemsize // 8) * 8


def _broken(path: Path, expected: str, got: str) -> str:
    return (
        f"path: expected a whole token file, got {str(path)!r}, which is cut off or changed: expected {expected}, got "
        f"{got}. Write it again."
    )
