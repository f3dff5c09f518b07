"""Work of the host between segments of the decoding loop: decode text, find stop strings, stream what is new."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.short_repr import short_repr
from jax_attention.decoding.continuation import Continuation

if TYPE_CHECKING:
    from jaxtyping import Int


@short_repr
class StreamChunk(NamedTuple):
    """New tokens and new text of one row, as `generate(stream=)` passes them to its callback."""

    row: tuple[int, ...]
    """Index of the row: `()` for one sequence, `(b,)` in a batch, with the sample in front for `num_samples`."""
    tokens: Int[np.ndarray, "n"]
    """New tokens, a stop token included."""
    text: str | None
    """New text, or None without a tokenizer. It never breaks a character and never shows a stop string or the beginning
    of one, so it may lag the tokens. The chunks of a row join to `GenerationResult.text`.
    """


class TextStreamer:
    """Tokens and text of one growing row, up to the first stop string."""

    def __init__(self, continuation: Continuation | None, stops: tuple[str, ...]):
        self._continuation, self._stops = continuation, stops
        self._token_count, self._shown = 0, 0
        self.text = None if continuation is None else ""
        self.length: int | None = None
        """The number of tokens up to the one that completed a stop string; None without a stop string."""

    def update(self, tokens: np.ndarray, ended: bool, by_token: bool) -> tuple[np.ndarray, str | None]:
        """New tokens and new text, if the row now has `tokens`; `by_token`: the last of them is a stop token."""
        if self.length is not None:
            return tokens[:0], None if self._continuation is None else ""
        old, self._token_count = self._token_count, len(tokens)
        if self._continuation is None:
            return tokens[old:], None
        visible = len(tokens) - by_token
        self.text = self._continuation.text(tokens[:visible])
        if _find_first(self.text, self._stops) is not None:
            self._cut_at_stop_string(tokens, old, visible)
            return tokens[old : self.length], self._take_text(len(self.text))
        return tokens[old:], self._take_text(len(self.text) if ended else self._final_length(tokens[:visible]))

    def _cut_at_stop_string(self, tokens: np.ndarray, old: int, visible: int) -> None:
        """End the row at the first token that completes a stop string, the text at the string's beginning.

        The tokens since the last update are decoded one by one, so that the result does not depend on where segments
        end: a later stop string may begin further to the left.
        """
        for length in range(old + 1, visible + 1):
            text = self._continuation.text(tokens[:length])
            start = _find_first(text, self._stops)
            if start is not None:
                self.text, self.length = text[:start], length
                return

    def _final_length(self, tokens: np.ndarray) -> int:
        """Number of characters that can neither change nor turn out to be the beginning of a stop string."""
        stable = self._continuation.stable_length(tokens)
        tail = self.text[:stable]
        begun = [n for stop in self._stops for n in range(1, len(stop)) if tail.endswith(stop[:n])]
        return stable - max(begun, default=0)

    def _take_text(self, end: int) -> str:
        """The text up to `end` that was not shown yet. Never goes back, as shown text cannot be taken back."""
        start, self._shown = self._shown, max(self._shown, end)
        return self.text[start : self._shown]


def _find_first(text: str, stops: tuple[str, ...]) -> int | None:
    """Position of the leftmost stop string, or None."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


class TextStreamers:
    """One `TextStreamer` per row of a batch."""

    def __init__(
        self,
        batch_shape: tuple[int, ...],
        continuations: dict[tuple[int, ...], Continuation] | None,
        stops: tuple[str, ...] = (),
    ):
        by_row = continuations or {}
        self._rows = {row: TextStreamer(by_row.get(row), stops) for row in np.ndindex(*batch_shape)}

    def update(self, tokens: np.ndarray, lengths: np.ndarray, stopped: np.ndarray, last: bool) -> Iterator[StreamChunk]:
        """Yield what is new in every row, and write the ends that stop strings set into `lengths` and `stopped`."""
        for row, streamer in self._rows.items():
            by_token = bool(stopped[row]) and streamer.length is None
            new, text = streamer.update(tokens[row][: lengths[row]], last or by_token, by_token)
            if streamer.length is not None:
                lengths[row], stopped[row] = streamer.length, True
            if len(new) or text:
                yield StreamChunk(row, new, text)

    def texts(self, batch_shape: tuple[int, ...], row: tuple[int, ...] = ()) -> Any:
        """The text of one sequence, or lists of texts nested as the batch dimensions are."""
        if len(row) == len(batch_shape):
            return self._rows[row].text
        return [self.texts(batch_shape, (*row, i)) for i in range(batch_shape[len(row)])]
