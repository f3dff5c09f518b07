"""Whole documents packed into rows, with segment ids, and positions that start at 0 in each document."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.data.sources import Batch, Source, check_address, row_numbers
from jax_attention.data.tokens import Tokens

if TYPE_CHECKING:
    from jaxtyping import Int


@short_repr
class _Pieces(NamedTuple):
    """Pieces of at most T tokens that the documents are cut into, sorted by row; arrays `[pieces]`."""

    start: np.ndarray
    """Index of the first token in the concatenated ids."""
    size: np.ndarray
    """Number of tokens, at most T."""
    ends_document: np.ndarray
    """Whether the piece is the last of its document, bool."""
    row: np.ndarray
    """Row that holds the piece."""
    column: np.ndarray
    """Index of the first token in that row."""
    segment: np.ndarray
    """Segment id: number of the piece in its row, from 1."""


class PackedDocuments(Source):
    """Source of rows of whole documents; a document longer than T is cut into pieces of T tokens and a rest.

        row:          a a a a b b b . .
        segment_ids:  1 1 1 1 2 2 2 0 0        positions:  0 1 2 3 0 1 2 0 0
        targets:      a a a - b b - . .        weights:    1 1 1 0 1 1 0 0 0

    Each piece is a segment, so attention stays inside it; the target of its last token is still the next token of its
    document. Pieces are placed by best fit, largest first. One epoch visits every row once, and so every token of every
    document, in an order that depends on (seed, epoch) only.

    Args:
        tokens: `Tokens`, or one integer array per document.
        length: T, the number of tokens in a row.

    Returns:
        A `Source` whose batches have positions and segment ids, int32 `[B, T]`.

    Raises:
        ValueError: if no document has 2 tokens, or `length` is smaller than 1. By `batch`, if an argument is out of
            range.
        TypeError: if `length` is not an int.

    Example:
        >>> from jax_attention import data
        >>> batch = next(data.PackedDocuments([[5, 6, 7], [8, 9]], length=6).evaluation_batches(1))
        >>> batch.tokens.tolist(), batch.segment_ids.tolist()
        ([[5, 6, 7, 8, 9, 0]], [[1, 1, 1, 2, 2, 0]])

    Reference:
        Krell et al. (2021), "Efficient sequence packing without cross-contamination", https://arxiv.org/abs/2107.02027.
    """

    def __init__(self, tokens: Tokens | Any, length: int) -> None:
        super().__init__(tokens, length)
        sizes = np.diff(self.tokens.starts)
        self.predicted = int(np.maximum(sizes - 1, 0).sum())
        fail_unless(
            self.predicted > 0,
            f"tokens: expected a document of at least 2 tokens, one and the next, got {len(sizes)} document(s) of at "
            f"most {sizes.max(initial=0)}. The texts are too short.",
        )
        self._pieces = _place_pieces(self.tokens.starts, self.length)
        self.evaluation_rows = int(self._pieces.row[-1]) + 1
        self._first_piece = np.searchsorted(self._pieces.row, np.arange(self.evaluation_rows + 1))

    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Batch:
        check_address(seed, step)
        numbers = row_numbers(batch_size, rows) + int(step) * int(batch_size)  # rows since the beginning of the run
        epochs, places = np.divmod(numbers, self.evaluation_rows)
        chosen = np.empty_like(places)
        for epoch in set(epochs.tolist()):
            in_epoch = epochs == epoch
            chosen[in_epoch] = _permutation(int(seed), epoch, self.evaluation_rows)[places[in_epoch]]
        return self._fill(chosen)

    def _evaluation_batch(self, rows: Int[np.ndarray, "B"]) -> Batch:
        return self._fill(rows)

    def _fill(self, rows: Int[np.ndarray, "B"]) -> Batch:
        """The batch of these rows; numbers from `evaluation_rows` on give empty rows, which are padding."""
        existing = np.minimum(rows, self.evaluation_rows - 1)
        first, count = self._first_piece[existing], self._first_piece[existing + 1] - self._first_piece[existing]
        count = np.where(rows < self.evaluation_rows, count, 0)
        piece = np.repeat(first, count) + _ranges(count)
        size, row = self._pieces.size[piece], np.repeat(np.arange(len(rows)), count)
        position = _ranges(size)
        source = np.repeat(self._pieces.start[piece], size) + position
        place = np.repeat(row * self.length + self._pieces.column[piece], size) + position
        weights = np.ones(len(place), np.float32)
        weights[np.cumsum(size)[self._pieces.ends_document[piece]] - 1] = 0
        following = self._ids[np.minimum(source + 1, len(self._ids) - 1)]
        columns = (
            (self._ids[source], np.int32),
            (np.where(weights > 0, following, 0), np.int32),
            (weights, np.float32),
            (position, np.int32),
            (np.repeat(self._pieces.segment[piece], size), np.int32),
        )
        return Batch(*(_scatter(values, place, (len(rows), self.length), dtype) for values, dtype in columns))


def _scatter(values: np.ndarray, place: np.ndarray, shape: tuple[int, int], dtype: type) -> np.ndarray:
    out = np.zeros(shape, dtype)
    out.reshape(-1)[place] = values
    return out


def _ranges(sizes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "N"]:
    """The concatenated ranges 0 … sizes[0]-1, 0 … sizes[1]-1, …"""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, count: int) -> Int[np.ndarray, "count"]:
    """Order of the rows in an epoch, cached: each batch needs only a few of its entries."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False  # all callers share the cached array
    return order


def _place_pieces(starts: Int[np.ndarray, "d"], length: int) -> _Pieces:
    """Cut documents into pieces and give each a row and a column."""
    sizes = np.diff(starts)
    counts = -(-sizes // length)
    nth = _ranges(counts)
    start = np.repeat(starts[:-1], counts) + nth * length
    size = np.minimum(np.repeat(starts[1:], counts) - start, length)
    row = _best_fit(size, length)
    order = np.argsort(row, kind="stable")
    row, size = row[order], size[order]
    segment = _ranges(np.bincount(row))
    before = np.cumsum(size) - size
    column = before - before[np.arange(len(row)) - segment]
    return _Pieces(start[order], size, (nth + 1 == np.repeat(counts, counts))[order], row, column, segment + 1)


def _best_fit(sizes: Int[np.ndarray, "p"], length: int) -> Int[np.ndarray, "p"]:
    """The row of each piece, by best-fit decreasing: largest piece first, into the row that it leaves least room in.

    Bit r of `rooms` is set while some row has room for exactly r tokens, so the lowest set bit from `size` on is the
    best fit, found without a search over rows. Rows are then numbered in the order of the text.
    """
    row = np.full(len(sizes), -1)
    full = np.flatnonzero(sizes == length)
    row[full] = np.arange(len(full))
    shorter = np.flatnonzero(sizes < length)
    new_row, rooms = len(full), 0
    rows_by_room: list[list[int]] = [[] for _ in range(length)]
    for piece in shorter[np.argsort(-sizes[shorter], kind="stable")].tolist():
        size = int(sizes[piece])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            chosen = rows_by_room[room].pop()
            rooms &= ~(0 if rows_by_room[room] else 1 << room)
        else:
            room, chosen, new_row = length, new_row, new_row + 1
        row[piece] = chosen
        if room > size:
            rows_by_room[room - size].append(chosen)
            rooms |= 1 << (room - size)
    _, first, number = np.unique(row, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]
