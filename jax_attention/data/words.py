"""A tokenizer whose tokens are whole words, for sentences of few different ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.data.tokenizer import SETTINGS, Tokenizer, settings_json, utf8

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclasses.dataclass(frozen=True)
class Words(Tokenizer):
    """One token per word; words stand apart by one space.

        encode("w_1 w_2 … w_n")[i] = place of w_i in the vocabulary

    Args:
        vocabulary: different words without white space; id i is `vocabulary[i]`.
        unknown: None refuses words outside the vocabulary; a word of the vocabulary takes their place.

    Returns:
        A tokenizer.

    Raises:
        ValueError: if a word repeats, is empty or holds white space, there is none, or `unknown` is not one of them.
            By `encode`, if a text has other white space than single spaces, or an unknown word and none takes its
            place.
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
                f"vocabulary: expected words without white space, got {word!r} at place {i}. Split the text first.",
            )
            fail_unless(
                self._place[word] == i,
                f"vocabulary: expected different words, got {word!r} twice. Use Words.train(texts).",
            )
        fail_unless(
            self.unknown is None or isinstance(self.unknown, str),
            f"unknown: expected None or a word, got {describe_array(self.unknown)}.",
            TypeError,
        )
        fail_unless(
            self.unknown is None or self.unknown in self._place,
            f"unknown: expected one word of the vocabulary, got {self.unknown!r}. Words.train adds it.",
        )

    @classmethod
    def train(cls, texts: Iterable[str], unknown: str | None = None) -> Words:
        """All words of the texts, sorted by code points; `unknown` joins them if it is not among them."""
        fail_unless(not isinstance(texts, str), "texts: expected several texts, got one str. Pass [text].", TypeError)
        found = {word for text in texts for word in split_words(text)}
        return cls(tuple(sorted(found if unknown is None else found | {unknown})), unknown)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def pieces(self) -> None:
        """Which bytes a word stands for depends on the ids beside it: only between words is there a space."""

    def encode(self, text: str) -> Int[np.ndarray, "N"]:
        words = split_words(text)
        rest = None if self.unknown is None else self._place[self.unknown]
        ids = [self._place.get(word, rest) for word in words]
        if None in ids:
            raise ValueError(self._complaint(words))
        return np.array(ids, np.int32)

    def decode(self, ids: Any) -> str:
        return " ".join([self.vocabulary[i] for i in self.checked(ids)])

    def settled(self, ids: list[int]) -> str:
        return self.decode(ids)

    def count_unknown(self, text: str) -> int:
        """How many words of a text are not in the vocabulary."""
        return len(self.unknown_words(text))

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that are not in the vocabulary, as often as they stand there."""
        return [word for word in split_words(text) if word not in self._place]

    def contents(self) -> dict[str, bytes]:
        return {SETTINGS: settings_json(kind=self.kind, vocabulary=self.vocabulary, unknown=self.unknown)}

    @functools.cached_property
    def _place(self) -> dict[str, int]:
        return {word: i for i, word in reversed(list(enumerate(self.vocabulary)))}

    def _complaint(self, words: list[str]) -> str:
        strange = list(dict.fromkeys(self.unknown_words(" ".join(words))))
        shown = ", ".join(map(repr, strange[:10])) + (", …" if len(strange) > 10 else "")
        return (
            f"text: expected words of the vocabulary of {self.vocab_size}, got {len(strange)} unknown: {shown}; the "
            f"first is word {words.index(strange[0])}. Drop them, replace them (Words.train(texts, unknown='<unk>')) "
            "or use bytes or subwords, which know every word."
        )


def split_words(text: str) -> list[str]:
    """The words of a text in which they stand apart by one space, or an error that names other white space."""
    utf8(text)
    words, found = text.split(" ") if text else [], text.split()
    if words != found:
        place = next((i for i, c in enumerate(text) if c.isspace() and (c != " " or _is_alone(text, i))), 0)
        raise ValueError(
            f"text: expected words with single spaces between them, got {text[max(0, place - 10) : place + 11]!r} with "
            f"{text[place]!r} at place {place}. Tidy it: ' '.join(text.split())."
        )
    return words


def _is_alone(text: str, place: int) -> bool:
    """Whether the space at `place` has no word on one of its sides."""
    return place in (0, len(text) - 1) or text[place - 1].isspace()
