"""What a tokenizer is: text to ids and back, without loss; and its decoder for ids that come one at a time."""

from __future__ import annotations

import abc
import codecs
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.files import new_file

if TYPE_CHECKING:
    from jaxtyping import Int

SETTINGS = "settings.json"
"""The file in a saved tokenizer's folder that says of which kind it is."""


@dataclasses.dataclass(frozen=True)
class Tokenizer(abc.ABC):
    """Text to token ids and back.

        decode(encode(text)) == text,        0 <= id < vocab_size

    A value: equal settings make equal tokenizers, and nothing changes after it is made. A subclass says `vocab_size`,
    `encode`, `pieces` and `contents`; the rest follows.

    Args: none; subclasses have their own.

    Returns:
        A tokenizer.

    Raises:
        TypeError: when the base class itself is called.

    Example:
        >>> from jax_attention import data
        >>> isinstance(data.Bytes(), data.Tokenizer)
        True

    Reference:
        Mielke et al. (2021), "Between words and characters", https://arxiv.org/abs/2112.10508.
    """

    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """V: ids are 0 … V-1."""

    @abc.abstractmethod
    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """The ids of a text, int32."""

    @property
    @abc.abstractmethod
    def pieces(self) -> tuple[bytes, ...] | None:
        """The bytes that each id stands for, V of them; None if they depend on the ids beside it."""

    @abc.abstractmethod
    def contents(self) -> dict[str, bytes]:
        """The files that `save` writes, by name."""

    def encode_many(self, texts: Iterable[str]) -> list[Int[np.ndarray, "N"]]:
        """The ids of several texts."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Int[np.ndarray, "N"] | Sequence[int]) -> str:
        """The text of some ids; U+FFFD stands where their bytes are not UTF-8."""
        pieces = self.pieces
        return b"".join([pieces[i] for i in self.checked(ids)]).decode("utf-8", "replace")

    def settled(self, ids: list[int]) -> str:
        """A beginning of `decode(ids)` that no further id can change. Needed only where `pieces` is None."""
        return ""

    def checked(self, ids: Any) -> list[int]:
        """Ids as a list of ints, after a look at their type, shape and range."""
        array = np.asarray(ids)
        if array.size == 0 and array.ndim == 1:
            return []
        fail_unless(
            array.ndim == 1 and np.issubdtype(array.dtype, np.integer),
            f"ids: expected integers [N], got {describe_array(array)}. Decode one sequence at a time.",
            TypeError if array.ndim == 1 else ValueError,
        )
        bad = np.flatnonzero((array < 0) | (array >= self.vocab_size))
        if bad.size:
            raise ValueError(
                f"ids: expected ids from 0 to {self.vocab_size - 1}, got {array[bad[0]]} at place {bad[0]}. Was the "
                "model trained with another tokenizer?"
            )
        return array.tolist()

    def count_bytes(self, text: str) -> int:
        """How many UTF-8 bytes a text has: what bits per byte divide by."""
        return len(utf8(text))

    @functools.cached_property
    def token_bytes(self) -> Int[np.ndarray, "V"]:
        """How many UTF-8 bytes each id stands for; where `pieces` is None, when it stands alone."""
        pieces = self.pieces
        if pieces is None:
            pieces = [self.decode([i]).encode() for i in range(self.vocab_size)]
        return np.array([len(piece) for piece in pieces], np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ between tokenizers that differ."""
        digest = hashlib.sha256()
        for name, content in sorted(self.contents().items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, for `load_tokenizer`. Another tokenizer there is not replaced."""
        folder, contents = Path(folder), self.contents()
        there = {name: folder / name for name in contents if (folder / name).exists()}
        other = [name for name, path in there.items() if path.read_bytes() != contents[name]]
        if other:
            raise FileExistsError(
                f"folder: expected a folder without another tokenizer, got {str(folder)!r}, whose {other[0]} is not "
                "this tokenizer's. Save to another folder."
            )
        for name in sorted(contents.keys() - there.keys(), key=lambda name: name == SETTINGS):
            with new_file(folder / name) as file:
                file.write(contents[name])


class StreamDecoder:
    """Decode ids one at a time, as generation makes them.

        push(i_1) + push(i_2) + … + push(i_n) + finish() == tokenizer.decode([i_1, …, i_n])

    No piece ends inside a character: bytes wait until theirs is whole. A tokenizer whose ids mean other text beside
    other ids (a `tokenizer.json` that is not byte-level) keeps text back until nothing can change it, and each push
    costs one decoding of all ids so far.

    Args:
        tokenizer: whose ids they are.

    Returns:
        A decoder at the beginning of a text; `finish` sets it back there.

    Raises:
        ValueError: by `push`, if an id is outside the vocabulary.
        TypeError: if `tokenizer` is none; by `push`, if an id is not an int.

    Example:
        >>> from jax_attention import data
        >>> decoder = data.StreamDecoder(data.Bytes())
        >>> [decoder.push(i) for i in "a你".encode()], decoder.finish()
        (['a', '', '', '你'], '')

    Reference:
        The Unicode Standard, section 3.9, "U+FFFD substitution of maximal subparts".
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        fail_unless(
            isinstance(tokenizer, Tokenizer),
            f"tokenizer: expected a Tokenizer, got {describe_array(tokenizer)}. load_tokenizer(folder) reads one.",
            TypeError,
        )
        self.tokenizer = tokenizer
        self._start()

    def push(self, token: int) -> str:
        """Take the next id; return the text that is certain now, often one character or none."""
        size = self.tokenizer.vocab_size
        token = check_int("token", token, 0, "Convert arrays first: int(token).")
        fail_unless(token < size, f"token: expected an id below the vocabulary size {size}, got {token}.")
        pieces = self.tokenizer.pieces
        if pieces is not None:
            return self._utf8.decode(pieces[token])
        self._ids.append(token)
        return self._new(self.tokenizer.settled(self._ids))

    def finish(self) -> str:
        """Return what was still kept back, and start again."""
        if self.tokenizer.pieces is not None:
            rest = self._utf8.decode(b"", final=True)
        else:
            rest = self._new(self.tokenizer.decode(self._ids))
        self._start()
        return rest

    def _start(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._told = 0

    def _new(self, text: str) -> str:
        new = text[self._told :]
        self._told += len(new)
        return new


def utf8(text: str) -> bytes:
    """The bytes of a text, or an error that names what is not text."""
    fail_unless(isinstance(text, str), f"text: expected a str, got {describe_array(text)}.", TypeError)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text: expected Unicode characters, got the lone surrogate U+{ord(text[error.start]):04X} at place "
            f"{error.start}. Clean it: text.encode('utf-8', 'replace').decode()."
        ) from None


def settings_json(**settings: Any) -> bytes:
    """What stands in a saved tokenizer's settings file."""
    return (json.dumps({"format": 1, **settings}, indent=1) + "\n").encode()
