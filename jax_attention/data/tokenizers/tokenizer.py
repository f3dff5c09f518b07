"""The base class of all tokenizers, and a decoder for ids that arrive one at a time."""

from __future__ import annotations

import abc
import codecs
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.files import new_file

if TYPE_CHECKING:
    from jaxtyping import Int

SETTINGS = "settings.json"
"""Name of the file that holds the kind of a saved tokenizer and, for small ones, its vocabulary."""


@dataclasses.dataclass(frozen=True)
class Tokenizer(abc.ABC):
    """Abstract base class: text to token ids and back.

        decode(encode(text)) == text,        0 <= id < vocab_size

    Tokenizers are frozen dataclasses: two with equal settings are equal. A subclass sets `kind` and defines
    `vocab_size`, `encode`, `token_bytes` and `contents`; everything else has a default. One whose `token_bytes` is None
    also overrides `decode` and, to be streamed before the end of a text, `stable_prefix`. One with special tokens also
    overrides `special_ids`.

    Raises:
        TypeError: if the base class itself is instantiated.

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
        """Number of different ids, V; ids are 0 … V-1."""

    @abc.abstractmethod
    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        """Token ids of a text, int32 `[N]`."""

    @property
    @abc.abstractmethod
    def token_bytes(self) -> tuple[bytes, ...] | None:
        """UTF-8 bytes of each of the V ids; None if the text of an id depends on its neighbours."""

    @abc.abstractmethod
    def contents(self) -> dict[str, bytes]:
        """Contents of the files that `save` writes, by file name."""

    def encode_many(self, texts: Iterable[str]) -> list[Int[np.ndarray, "N"]]:
        """Token ids of each text."""
        return [self.encode(text) for text in texts]

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, such as the end of a text: `decode` and `StreamDecoder` can leave them out."""
        return frozenset()

    def decode(self, ids: Int[np.ndarray, "N"] | Sequence[int], skip_special_tokens: bool = False) -> str:
        """Text of ids `[N]`, on request without special tokens; U+FFFD replaces bytes that are not UTF-8."""
        token_bytes = self.token_bytes
        return b"".join([token_bytes[i] for i in self.checked(ids, skip_special_tokens)]).decode("utf-8", "replace")

    def stable_prefix(self, ids: list[int]) -> str:
        """A prefix of `decode(ids)` that stays the same whatever ids follow, as long as possible.

        `StreamDecoder` calls it where `token_bytes` is None. The default, "", keeps all text back until the end.
        """
        return ""

    def decoding_context(self, ids: Any, skip_special_tokens: bool = False) -> list[int]:
        """The last of `ids` that decide what later ids add to the text.

            decode(ids + later) after what it shares with decode(ids)
              == decode(context + later) after what it shares with decode(context)

        `decoding.generate` decodes a prompt's context, not the whole prompt, in front of new tokens. The default is all
        ids, which is right for every `decode`. If ids stand for bytes, three bytes are enough. In UTF-8 any byte but a
        continuation byte begins a character, whatever came before it. Three continuation bytes end every character.
        """
        kept, token_bytes = self.checked(ids, skip_special_tokens), self.token_bytes
        if token_bytes is None:
            return kept
        return last_ids(kept, lambda i: len(token_bytes[i]), 3)

    def checked(self, ids: Any, skip_special_tokens: bool = False) -> list[int]:
        """Ids as a list of ints, on request without special tokens; refuses a wrong type, shape or range."""
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
                f"ids: expected ids from 0 to {self.vocab_size - 1}, got {array[bad[0]]} at index {bad[0]}. Was the "
                "model trained with another tokenizer?"
            )
        kept = array.tolist()
        if skip_special_tokens and self.special_ids:
            return [i for i in kept if i not in self.special_ids]
        return kept

    def count_bytes(self, text: str) -> int:
        """Number of UTF-8 bytes of a text, the denominator of bits per byte."""
        return len(utf8(text))

    @functools.cached_property
    def token_byte_counts(self) -> Int[np.ndarray, "V"]:
        """Number of UTF-8 bytes of each id; where `token_bytes` is None, those of the id decoded alone."""
        token_bytes = self.token_bytes
        if token_bytes is None:
            token_bytes = [self.decode([i]).encode() for i in range(self.vocab_size)]
        return np.array([len(content) for content in token_bytes], np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a hash of `contents`, equal for equal tokenizers only."""
        digest = hashlib.sha256()
        for name, content in sorted(self.contents().items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()[:16]

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into a folder, for `load_tokenizer`. Another tokenizer there is never overwritten."""
        folder, contents = Path(folder), self.contents()
        existing = {name: folder / name for name in contents if (folder / name).exists()}
        different = [name for name, path in existing.items() if path.read_bytes() != contents[name]]
        if different:
            raise FileExistsError(
                f"folder: expected a folder without another tokenizer, got {str(folder)!r}, whose {different[0]} "
                "differs from that of this tokenizer. Save to another folder."
            )
        # The settings come last, so that they never refer to a definition that an interrupted save did not write.
        for name in sorted(contents.keys() - existing.keys(), key=lambda name: name == SETTINGS):
            with new_file(folder / name) as file:
                file.write(contents[name])


class StreamDecoder:
    """Decode ids one at a time, as a model generates them.

        push(i_1) + push(i_2) + … + push(i_n) + finish() == tokenizer.decode([i_1, …, i_n], skip_special_tokens)

    Text never ends inside a character: the bytes of an unfinished one are kept back. If the text of an id depends on
    its neighbours (`token_bytes` is None, as for a `tokenizer.json` that is not byte-level), text is kept back until
    later ids cannot change it, and each `push` decodes all ids so far.

    Args:
        tokenizer: the tokenizer that the ids belong to.
        skip_special_tokens: whether special tokens are left out of the text.

    Raises:
        ValueError: by `push`, if an id is outside the vocabulary.
        TypeError: if `tokenizer` is not a `Tokenizer`; by `push`, if an id is not an int.

    Example:
        >>> from jax_attention import data
        >>> decoder = data.StreamDecoder(data.Bytes())
        >>> [decoder.push(i) for i in "a你".encode()], decoder.finish()
        (['a', '', '', '你'], '')

    Reference:
        The Unicode Standard, section 3.9, "U+FFFD substitution of maximal subparts".
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = False) -> None:
        fail_unless(
            isinstance(tokenizer, Tokenizer),
            f"tokenizer: expected a Tokenizer, got {describe_array(tokenizer)}. load_tokenizer(folder) reads one.",
            TypeError,
        )
        self.tokenizer = tokenizer
        self._skipped_ids = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._start()

    def push(self, token: int) -> str:
        """Add the next id; return the text that has become final, often one character or none."""
        size = self.tokenizer.vocab_size
        token = check_int("token", token, 0, "Convert arrays first: int(token).")
        fail_unless(token < size, f"token: expected an id below the vocabulary size {size}, got {token}.")
        if token in self._skipped_ids:
            return ""
        token_bytes = self.tokenizer.token_bytes
        if token_bytes is not None:
            return self._utf8_decoder.decode(token_bytes[token])
        self._ids.append(token)
        return self._unreturned(self.tokenizer.stable_prefix(self._ids))

    def finish(self) -> str:
        """Return the text that was still kept back, and start a new text."""
        if self.tokenizer.token_bytes is not None:
            rest = self._utf8_decoder.decode(b"", final=True)
        else:
            rest = self._unreturned(self.tokenizer.decode(self._ids))
        self._start()
        return rest

    def _start(self) -> None:
        self._utf8_decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._returned_length = 0

    def _unreturned(self, text: str) -> str:
        """The part of `text` that no `push` has returned yet."""
        new = text[self._returned_length :]
        self._returned_length += len(new)
        return new


def last_ids(ids: list[int], size: Callable[[int], int], total: int) -> list[int]:
    """The fewest last ids whose sizes sum to `total`; all ids if there are not enough."""
    start = len(ids)
    while total > 0 and start > 0:
        start -= 1
        total -= size(ids[start])
    return ids[start:]


def utf8(text: str) -> bytes:
    """UTF-8 bytes of a text; refuses lone surrogates, which UTF-8 cannot encode."""
    fail_unless(isinstance(text, str), f"text: expected a str, got {describe_array(text)}.", TypeError)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text: expected Unicode characters, got the lone surrogate U+{ord(text[error.start]):04X} at index "
            f"{error.start}. Clean it: text.encode('utf-8', 'replace').decode()."
        ) from None


def settings_json(**settings: Any) -> bytes:
    """Content of the settings file of a saved tokenizer. Fingerprints are hashes of it, so the layout is fixed."""
    return (json.dumps({"format": 1, **settings}, indent=1) + "\n").encode()
