"""Tokenizers whose tokens are single symbols: the characters of a training text, or the 256 bytes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.data.tokenizer import SETTINGS, Tokenizer, settings_json, utf8

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Characters(Tokenizer):
    """One token per character.

        encode(text)[i] = place of text[i] in the vocabulary

    Args:
        vocabulary: a string of different characters; id i is character i.
        unknown: None refuses characters outside the vocabulary; a character of the vocabulary takes their place.

    Returns:
        A tokenizer.

    Raises:
        ValueError: if a character repeats, there is none, or `unknown` is not one of them. By `encode`, if a character
            is unknown and none takes its place.
        TypeError: if `vocabulary` or `unknown` is not a string.

    Example:
        >>> from jax_attention import data
        >>> tokenizer = data.Characters.train(["hello"])
        >>> tokenizer.vocabulary, tokenizer.encode("hole").tolist()
        ('ehlo', [1, 3, 2, 0])

    Reference:
        Karpathy (2015), "The unreasonable effectiveness of recurrent neural networks".
    """

    vocabulary: str
    unknown: str | None = None

    kind: ClassVar[str] = "characters"

    def __post_init__(self) -> None:
        utf8(self.vocabulary)
        fail_unless(len(self.vocabulary) > 0, "vocabulary: expected at least one character, got ''. Is the text empty?")
        twice = next((c for i, c in enumerate(self.vocabulary) if self._place.get(c) != i), None)
        fail_unless(
            twice is None,
            f"vocabulary: expected different characters, got {twice!r} twice. Use Characters.train(texts).",
        )
        fail_unless(
            self.unknown is None or isinstance(self.unknown, str),
            f"unknown: expected None or a character, got {describe_array(self.unknown)}.",
            TypeError,
        )
        fail_unless(
            self.unknown is None or self.unknown in self._place,
            f"unknown: expected one character of the vocabulary, got {self.unknown!r}. Characters.train adds it.",
        )

    @classmethod
    def train(cls, texts: Iterable[str], unknown: str | None = None) -> Characters:
        """All characters of the texts, sorted by code point; `unknown` joins them if it is not among them."""
        fail_unless(not isinstance(texts, str), "texts: expected several texts, got one str. Pass [text].", TypeError)
        found = set().union(*texts)
        return cls("".join(sorted(found if unknown is None else found | {unknown})), unknown)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @functools.cached_property
    def pieces(self) -> tuple[bytes, ...]:
        return tuple(character.encode() for character in self.vocabulary)

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        ids = self._lookup(text)
        if ids.size and ids.min() < 0:
            if self.unknown is None:
                raise ValueError(self._complaint(text, ids))
            ids[ids < 0] = self._place[self.unknown]
        return ids

    def count_unknown(self, text: str) -> int:
        """How many characters of a text are not in the vocabulary."""
        return int(np.count_nonzero(self._lookup(text) < 0))

    def contents(self) -> dict[str, bytes]:
        return {SETTINGS: settings_json(kind=self.kind, vocabulary=self.vocabulary, unknown=self.unknown)}

    @functools.cached_property
    def _place(self) -> dict[str, int]:
        return {character: i for i, character in reversed(list(enumerate(self.vocabulary)))}

    @functools.cached_property
    def _table(self) -> Int[np.ndarray, "C"]:
        """Ids by code point, -1 where there is none; the last entry stands for all higher code points."""
        points = [ord(character) for character in self.vocabulary]
        table = np.full(max(points) + 2, -1, np.int32)
        table[points] = np.arange(len(points), dtype=np.int32)
        return table

    def _lookup(self, text: str) -> Int[np.ndarray, "N"]:
        points = code_points(text)
        return self._table[np.minimum(points, len(self._table) - 1)]

    def _complaint(self, text: str, ids: Int[np.ndarray, "N"]) -> str:
        places = np.flatnonzero(ids < 0)
        strange = sorted({text[i] for i in places})
        shown = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in strange[:10]) + (", …" if len(strange) > 10 else "")
        return (
            f"text: expected characters of the vocabulary of {self.vocab_size}, got {len(strange)} unknown: {shown}; "
            f"the first at place {places[0]}. Drop them, replace them (Characters.train(texts, unknown='\\ufffd')) "
            "or use bytes or subwords, which know every character."
        )


@dataclasses.dataclass(frozen=True)
class Bytes(Tokenizer):
    """One token per UTF-8 byte: 256 tokens for every text there is.

        encode(text) = the bytes of text in UTF-8

    Args: none.

    Returns:
        A tokenizer.

    Raises:
        Nothing.

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
    def pieces(self) -> tuple[bytes, ...]:
        return ALL_BYTES

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def contents(self) -> dict[str, bytes]:
        return {SETTINGS: settings_json(kind=self.kind)}


ALL_BYTES = tuple(bytes([i]) for i in range(256))


def code_points(text: str) -> Int[np.ndarray, "N"]:
    """The numbers of the characters."""
    utf8(text)  # refuses what is not text
    return np.frombuffer(text.encode("utf-32-le"), "<u4")
