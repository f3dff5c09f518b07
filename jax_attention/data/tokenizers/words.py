"""A tokenizer with one token per word, for texts of few different words."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.core.text import quote
from jax_attention.data.tokenizers.tokenizer import SETTINGS, Tokenizer, settings_json, utf8

if TYPE_CHECKING:
    from jaxtyping import Int


@short_repr
@dataclasses.dataclass(frozen=True)
class Words(Tokenizer):
    """Tokenizer with one token per word; single spaces separate words.

        encode("w_1 w_2 … w_n")[i] = index of w_i in the vocabulary

    Args:
        vocabulary: different words without white space; id i is `vocabulary[i]`.
        unknown: the word of the vocabulary that replaces words outside it; None refuses them.

    Raises:
        ValueError: if a word repeats, is empty or has white space, there is none, or `unknown` is not one of them.
            By `encode`, if a text has white space other than single spaces between words, or a word outside the
            vocabulary where `unknown` is None.
        TypeError: if `vocabulary` is not a tuple of strings, or `unknown` is not a string.

    Example:
        >>> from jax_attention import data
        >>> tokenizer = data.Words.train(["Tom chases Jerry", "Jerry sleeps"])
        >>> tokenizer.vocabulary, tokenizer.encode("Tom sleeps").tolist()
        (('Jerry', 'Tom', 'chases', 'sleeps'), [1, 3])

    Reference:
        Bengio et al. (2003), "A neural probabilistic language model".
    """

    vocabulary: tuple[str, ...]
    unknown: str | None = None

    kind: ClassVar[str] = "words"

    def __post_init__(self) -> None:
        fail_unless(
            isinstance(self.vocabulary, tuple),
            f"vocabulary: expected a tuple of words, got {type(self.vocabulary).__name__}. Take tuple(words), or "
            "Words.train(texts).",
            TypeError,
        )
        fail_unless(len(self.vocabulary) > 0, "vocabulary: expected at least one word, got (). Is the text empty?")
        for i, word in enumerate(self.vocabulary):
            utf8(word)
            fail_unless(
                word.split() == [word],
                f"vocabulary: expected words without white space, got {quote(word)} at index {i}. Split texts first.",
            )
            fail_unless(
                self._id_of[word] == i,
                f"vocabulary: expected different words, got {quote(word)} twice. Use Words.train(texts).",
            )
        fail_unless(
            self.unknown is None or isinstance(self.unknown, str),
            f"unknown: expected None or a word, got {describe_array(self.unknown)}.",
            TypeError,
        )
        fail_unless(
            self.unknown is None or self.unknown in self._id_of,
            f"unknown: expected one word of the vocabulary, got {quote(self.unknown)}. Words.train adds it.",
        )

    @classmethod
    def train(cls, texts: Iterable[str], unknown: str | None = None) -> Words:
        """Make a tokenizer of all words of the texts, sorted by code points; `unknown` is added if they lack it."""
        fail_unless(not isinstance(texts, str), "texts: expected several texts, got one str. Pass [text].", TypeError)
        words = {word for text in texts for word in split_words(text)}
        return cls(tuple(sorted(words if unknown is None else words | {unknown})), unknown)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def token_bytes(self) -> None:
        """None: whether a space belongs to a word depends on whether another word follows."""

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        words = split_words(text)
        unknown_id = None if self.unknown is None else self._id_of[self.unknown]
        ids = [self._id_of.get(word, unknown_id) for word in words]
        if None in ids:
            raise ValueError(self._unknown_message(words))
        return np.array(ids, np.int32)

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        return " ".join([self.vocabulary[i] for i in self.checked(ids, skip_special_tokens)])

    def stable_prefix(self, ids: list[int]) -> str:
        return self.decode(ids)

    def decoding_context(self, ids: Any, skip_special_tokens: bool = False) -> list[int]:
        return self.checked(ids, skip_special_tokens)[-1:]  # whether there is a word before decides about a space

    def count_unknown(self, text: str) -> int:
        """Number of words of a text that are not in the vocabulary."""
        return len(self.unknown_words(text))

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that are not in the vocabulary, repetitions included."""
        return [word for word in split_words(text) if word not in self._id_of]

    def contents(self) -> dict[str, bytes]:
        return {SETTINGS: settings_json(kind=self.kind, vocabulary=self.vocabulary, unknown=self.unknown)}

    @functools.cached_property
    def _id_of(self) -> dict[str, int]:
        return {word: i for i, word in reversed(list(enumerate(self.vocabulary)))}

    def _unknown_message(self, words: list[str]) -> str:
        unknown = list(dict.fromkeys(self.unknown_words(" ".join(words))))
        shown = ", ".join(map(repr, unknown[:10])) + (", …" if len(unknown) > 10 else "")
        return (
            f"text: expected words of the vocabulary of {self.vocab_size}, got {len(unknown)} unknown: {shown}; the "
            f"first is word {words.index(unknown[0])}. Drop them, replace them (Words.train(texts, unknown='<unk>')) "
            "or use bytes or subwords, which know every word."
        )


def split_words(text: str) -> list[str]:
    """Words of a text; refuses white space other than single spaces, which decoding could not restore."""
    utf8(text)
    words = text.split(" ") if text else []
    if words != text.split():
        place = next((i for i, c in enumerate(text) if c.isspace() and (c != " " or _lacks_a_neighbour(text, i))), 0)
        raise ValueError(
            f"text: expected words with single spaces between them, got {text[max(0, place - 10) : place + 11]!r} with "
            f"{text[place]!r} at index {place}. Tidy it: ' '.join(text.split())."
        )
    return words


def _lacks_a_neighbour(text: str, place: int) -> bool:
    """Whether the space at `place` has no word on its left or right."""
    return place in (0, len(text) - 1) or text[place - 1].isspace()
