"""What the host does between segments of the loop: decode text, find stop strings, hand out pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for the first bytes of a character whose last bytes are still to come."""


class StreamChunk(NamedTuple):
    """What `generate(stream=)` hands to its callback: the news of one row."""

    row: tuple[int, ...]
    """Which row: `()` for one sequence, `(b,)` in a batch, `(sample, …)` in front with `num_samples`."""
    tokens: Int[np.ndarray, "n"]
    """Its new tokens, a stop token included."""
    text: str | None
    """New text, or None without a tokenizer. It never breaks a character, never shows a stop string or its beginning,
    so it may lag behind the tokens; all pieces joined are `GenerationResult.text`.
    """


class TextStreamer:
    """One row as it grows: its tokens, its text, and where a stop string ends it."""

    def __init__(self, decode: Callable[[Any], str] | None, stops: tuple[str, ...]):
        self._decode, self._stops = decode, stops
        self._count, self._shown = 0, 0
        self.text = None if decode is None else ""
        self.length: int | None = None
        """The number of tokens after which a stop string stands in the text, once one does."""

    def follow(self, tokens: np.ndarray, ended: bool, by_token: bool) -> tuple[np.ndarray, str | None]:
        """New tokens and new text of a row that now has `tokens`; `by_token`: the last of them is a stop token."""
        if self.length is not None:
            return tokens[:0], None if self._decode is None else ""
        old, self._count = self._count, len(tokens)
        if self._decode is None:
            return tokens[old:], None
        visible = len(tokens) - by_token
        self.text = self._decode(tokens[:visible])
        if _first(self.text, self._stops) is not None:
            self._cut(tokens, old, visible)
            return tokens[old : self.length], self._show(len(self.text))
        return tokens[old:], self._show(len(self.text) - (0 if ended else self._unsure()))

    def _cut(self, tokens: np.ndarray, old: int, visible: int) -> None:
        """End the row at the first token that completes a stop string, the text at the string's beginning."""
        for length in range(old + 1, visible + 1):
            text = self._decode(tokens[:length])
            place = _first(text, self._stops)
            if place is not None:
                self.text, self.length = text[:place], length
                return

    def _unsure(self) -> int:
        """How many characters at the end may still change, or turn out to belong to a stop string."""
        sure = len(self.text.rstrip(UNFINISHED))
        tail = self.text[:sure]
        begun = [n for stop in self._stops for n in range(1, len(stop)) if tail.endswith(stop[:n])]
        return len(self.text) - sure + max(begun, default=0)

    def _show(self, end: int) -> str:
        start, self._shown = self._shown, max(self._shown, end)
        return self.text[start : self._shown]


def _first(text: str, stops: tuple[str, ...]) -> int | None:
    """Where the first stop string begins."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


class TextStreamers:
    """All rows of a batch; `lead` are its leading axes."""

    def __init__(self, lead: tuple[int, ...], decode: Callable[[Any], str] | None, stops: tuple[str, ...]):
        self._rows = {row: TextStreamer(decode, stops) for row in np.ndindex(*lead)}

    def follow(self, tokens: np.ndarray, lengths: np.ndarray, stopped: np.ndarray, last: bool) -> Iterator[StreamChunk]:
        """The news of every row; afterwards `lengths` and `stopped` know of stop strings, in place."""
        for row, follower in self._rows.items():
            by_token = bool(stopped[row]) and follower.length is None
            new, text = follower.follow(tokens[row][: lengths[row]], last or by_token, by_token)
            if follower.length is not None:
                lengths[row], stopped[row] = follower.length, True
            if len(new) or text:
                yield StreamChunk(row, new, text)

    def texts(self, lead: tuple[int, ...], row: tuple[int, ...] = ()) -> Any:
        """The text of one sequence, or lists of texts nested as the leading axes are."""
        if len(row) == len(lead):
            return self._rows[row].text
        return [self.texts(lead, (*row, i)) for i in range(lead[len(row)])]
