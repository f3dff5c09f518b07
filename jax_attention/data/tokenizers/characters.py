"""Tokenizers with one token per character of a training text, or per byte."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.core.text import quote
from jax_attention.data.tokenizers.tokenizer import SETTINGS, Tokenizer, settings_json, utf8

if TYPE_CHECKING:
    from jaxtyping import Int


@short_repr
@dataclasses.dataclass(frozen=True)
class Characters(Tokenizer):
    """Tokenizer with one token per character.

        encode(text)[i] = index of text[i] in the vocabulary

    Args:
        vocabulary: a string of different characters; id i is `vocabulary[i]`.
        unknown: the character of the vocabulary that replaces characters outside it; None refuses them.

    Raises:
        ValueError: if a character repeats, there is none, or `unknown` is not one of them. By `encode`, if a character
            is outside the vocabulary and `unknown` is None.
        TypeError: if `vocabulary` or `unknown` is not a string.

    Example:
        >>> from jax_attention import data
        >>> tokenizer = data.Characters.train(["hello"])
        >>> tokenizer.vocabulary, tokenizer.encode("hole").tolist()
        ('ehlo', [1, 3, 2, 0])

    Reference:
        Karpathy (2015), "The unreasonable effectiveness of recurrent neural networks", for models of characters.
    """

    vocabulary: str
    unknown: str | None = None

    kind: ClassVar[str] = "characters"

    def __post_init__(self) -> None:
        utf8(self.vocabulary)
        fail_unless(len(self.vocabulary) > 0, "vocabulary: expected at least one character, got ''. Is the text empty?")
        repeated = next((c for i, c in enumerate(self.vocabulary) if self._id_of.get(c) != i), None)
        fail_unless(
            repeated is None,
            f"vocabulary: expected different characters, got {repeated!r} twice. Use Characters.train(texts).",
        )
        fail_unless(
            self.unknown is None or isinstance(self.unknown, str),
            f"unknown: expected None or a character, got {describe_array(self.unknown)}.",
            TypeError,
        )
        fail_unless(
            self.unknown is None or self.unknown in self._id_of,
            f"unknown: expected one character of the vocabulary, got {quote(self.unknown)}. Characters.train adds it.",
        )

    @classmethod
    def train(cls, texts: Iterable[str], unknown: str | None = None) -> Characters:
        """Make a tokenizer of all characters of the texts, sorted by code point; `unknown` is added if they lack it."""
        fail_unless(not isinstance(texts, str), "texts: expected several texts, got one str. Pass [text].", TypeError)
        characters = set().union(*texts)
        return cls("".join(sorted(characters if unknown is None else characters | {unknown})), unknown)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        return tuple(character.encode() for character in self.vocabulary)

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        ids = self._lookup(text)
        if ids.size and ids.min() < 0:
            if self.unknown is None:
                raise ValueError(self._unknown_message(text, ids))
            ids[ids < 0] = self._id_of[self.unknown]
        return ids

    def count_unknown(self, text: str) -> int:
        """Number of characters of a text that are not in the vocabulary."""
        return int(np.count_nonzero(self._lookup(text) < 0))

    def contents(self) -> dict[str, bytes]:
        return {SETTINGS: settings_json(kind=self.kind, vocabulary=self.vocabulary, unknown=self.unknown)}

    @functools.cached_property
    def _id_of(self) -> dict[str, int]:
        return {character: i for i, character in reversed(list(enumerate(self.vocabulary)))}

    @functools.cached_property
    def _table(self) -> Int[np.ndarray, "C"]:
        """Ids by code point, -1 for unknown ones; the last entry is for all higher code points."""
        points = [ord(character) for character in self.vocabulary]
        table = np.full(max(points) + 2, -1, np.int32)
        table[points] = np.arange(len(points), dtype=np.int32)
        return table

    def _lookup(self, text: str) -> Int[np.ndarray, "N"]:
        points = _code_points(text)
        return self._table[np.minimum(points, len(self._table) - 1)]

    def _unknown_message(self, text: str, ids: Int[np.ndarray, "N"]) -> str:
        places = np.flatnonzero(ids < 0)
        unknown = sorted({text[i] for i in places})
        shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:10]) + (", …" if len(unknown) > 10 else "")
        return (
            f"text: expected characters of the vocabulary of {self.vocab_size}, got {len(unknown)} unknown: {shown}; "
            f"the first at index {places[0]}. Drop them, replace them (Characters.train(texts, unknown='\\ufffd')) "
            "or use bytes or subwords, which know every character."
        )


@dataclasses.dataclass(frozen=True)
class Bytes(Tokenizer):
    """Tokenizer with one token per UTF-8 byte: 256 ids encode every text.

        encode(text) = the bytes of text in UTF-8

    Example:
        >>> from jax_attention import data
        >>> data.Bytes().encode("你").tolist()
        [228, 189, 160]

    Reference:
        Xue et al. (2021), "ByT5: towards a token-free future", https://arxiv.org/abs/2105.13626.
    """

    kind: ClassVar[str] = "bytes"

    @property
    def vocab_size(self) -> int:
        return 256

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        return ALL_BYTES

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def contents(self) -> dict[str, bytes]:
        return {SETTINGS: settings_json(kind=self.kind)}


ALL_BYTES = tuple(bytes([i]) for i in range(256))


def _code_points(text: str) -> Int[np.ndarray, "N"]:
    """Unicode code points of a text."""
    utf8(text)  # refuses lone surrogates
    return np.frombuffer(text.encode("utf-32-le"), "<u4")
