"""Whole documents packed into rows, with segment ids and positions that start again in each."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.data.sources import Batch, Source, check_address, row_numbers
from jax_attention.data.tokens import Tokens

if TYPE_CHECKING:
    from jaxtyping import Int


class Pieces(NamedTuple):
    """The pieces of all documents, row by row; int64 `[pieces]` each."""

    start: np.ndarray
    """Where the piece begins among the ids."""
    size: np.ndarray
    """Its tokens, at most T."""
    last: np.ndarray
    """bool: whether its document ends with it."""
    row: np.ndarray
    column: np.ndarray
    """Where it begins in its row."""
    segment: np.ndarray
    """Its number in its row, from 1."""


class PackedDocuments(Source):
    """Whole documents in rows of T tokens; those longer than T are cut into pieces of T and a rest.

        row:          a a a a b b b . .
        segment_ids:  1 1 1 1 2 2 2 0 0        positions:  0 1 2 3 0 1 2 0 0
        targets:      a a a - b b - . .        weights:    1 1 1 0 1 1 0 0 0

    A piece looks at nothing but itself, yet its last token still has the next one of its document as target. Pieces go
    where they leave the least room (best fit, largest first). One epoch visits every row, and so every token of every
    document, once, in an order that depends on (seed, epoch) only.

    Args:
        tokens: `Tokens`, or one integer array per document.
        length: T.

    Returns:
        A `Source` whose batches have positions and segment ids.

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
        self._pieces = _place(self.tokens.starts, self.length)
        self.evaluation_rows = int(self._pieces.row[-1]) + 1
        self._first = np.searchsorted(self._pieces.row, np.arange(self.evaluation_rows + 1))

    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Batch:
        check_address(seed, step)
        numbers = row_numbers(batch_size, rows) + int(step) * int(batch_size)  # rows since the beginning of the run
        epochs, places = np.divmod(numbers, self.evaluation_rows)
        found = np.empty_like(places)
        for epoch in set(epochs.tolist()):
            here = epochs == epoch
            found[here] = _permutation(int(seed), epoch, self.evaluation_rows)[places[here]]
        return self._fill(found)

    def _evaluation_batch(self, rows: Int[np.ndarray, "B"]) -> Batch:
        return self._fill(rows)

    def _fill(self, rows: Int[np.ndarray, "B"]) -> Batch:
        """Lay the pieces of these rows out; a row that does not exist stays empty."""
        known = np.minimum(rows, self.evaluation_rows - 1)
        first, count = self._first[known], self._first[known + 1] - self._first[known]
        count = np.where(rows < self.evaluation_rows, count, 0)
        piece = np.repeat(first, count) + _restarting(count)
        size, row = self._pieces.size[piece], np.repeat(np.arange(len(rows)), count)
        position = _restarting(size)
        source = np.repeat(self._pieces.start[piece], size) + position
        place = np.repeat(row * self.length + self._pieces.column[piece], size) + position
        counts = np.ones(len(place), np.float32)
        counts[np.cumsum(size)[self._pieces.last[piece]] - 1] = 0
        following = self._ids[np.minimum(source + 1, len(self._ids) - 1)]
        columns = (
            (self._ids[source], np.int32),
            (np.where(counts > 0, following, 0), np.int32),
            (counts, np.float32),
            (position, np.int32),
            (np.repeat(self._pieces.segment[piece], size), np.int32),
        )
        return Batch(*(_scatter(values, place, (len(rows), self.length), dtype) for values, dtype in columns))


def _scatter(values: np.ndarray, place: np.ndarray, shape: tuple[int, int], dtype: type) -> np.ndarray:
    out = np.zeros(shape, dtype)
    out.reshape(-1)[place] = values
    return out


def _restarting(sizes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "N"]:
    """0 … sizes[0]-1, 0 … sizes[1]-1, …"""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, count: int) -> Int[np.ndarray, "count"]:
    """The order of rows in an epoch: a pure function, remembered because a batch needs only a few of its entries."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False
    return order


def _place(starts: Int[np.ndarray, "d"], length: int) -> Pieces:
    """Cut documents into pieces and give each a place."""
    sizes = np.diff(starts)
    counts = -(-sizes // length)
    nth = _restarting(counts)
    start = np.repeat(starts[:-1], counts) + nth * length
    size = np.minimum(np.repeat(starts[1:], counts) - start, length)
    row = _best_fit(size, length)
    order = np.argsort(row, kind="stable")
    row, size = row[order], size[order]
    segment = _restarting(np.bincount(row))
    before = np.cumsum(size) - size
    column = before - before[np.arange(len(row)) - segment]
    return Pieces(start[order], size, (nth + 1 == np.repeat(counts, counts))[order], row, column, segment + 1)


def _best_fit(sizes: Int[np.ndarray, "p"], length: int) -> Int[np.ndarray, "p"]:
    """The row of each piece: largest first, into the row that it fills best. Rows count in the order of the text.

    `rooms` has bit r set while some row has room for exactly r tokens, so the best row is its lowest fitting bit.
    """
    row = np.full(len(sizes), -1)
    whole = np.flatnonzero(sizes == length)
    row[whole] = np.arange(len(whole))
    rest = np.flatnonzero(sizes < length)
    following, rooms = len(whole), 0
    with_room: list[list[int]] = [[] for _ in range(length)]
    for piece in rest[np.argsort(-sizes[rest], kind="stable")].tolist():
        size = int(sizes[piece])
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            chosen = with_room[room].pop()
            rooms &= ~(0 if with_room[room] else 1 << room)
        else:
            room, chosen, following = length, following, following + 1
        row[piece] = chosen
        if room > size:
            with_room[room - size].append(chosen)
            rooms |= 1 << (room - size)
    _, first, number = np.unique(row, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number]
