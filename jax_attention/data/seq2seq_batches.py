"""Batches of pairs of token sequences: rows of like lengths together, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.numerics import EMPTY_POSITION
from jax_attention.data.sources import Batches, check_address, check_batch_size, row_numbers
from jax_attention.data.tokens import Tokens, as_tokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Seq2SeqBatch(NamedTuple):
    """Sources to read, and targets to write with what follows each of their tokens; NumPy arrays.

        source  x_1 … x_m        tokens  start y_1 … y_n        targets  y_1 … y_n stop

    Args:
        source: int32 `[B, S]`, 0 at padding.
        source_positions: int32 `[B, S]`: 0, 1, 2, … and `cache.EMPTY` at padding, so that nobody attends to it.
        tokens: int32 `[B, T]`, 0 at padding.
        targets: int32 `[B, T]`, the next tokens; 0 at padding.
        weights: float32 `[B, T]`, 1 where the target counts, 0 at padding.

    Returns:
        A tuple; a pytree.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import data
        >>> pairs = data.Seq2SeqBatches([[5, 6]], [[7, 8]], start=1, stop=2, multiple=1)
        >>> batch = pairs.batch(seed=0, step=0, batch_size=1)
        >>> batch.source.tolist(), batch.tokens.tolist(), batch.targets.tolist()
        ([[5, 6]], [[1, 7, 8]], [[7, 8, 2]])

    Reference:
        Sutskever, Vinyals, Le (2014), "Sequence to sequence learning with neural networks", section 2.
    """

    source: Int[np.ndarray, "B S"]
    source_positions: Int[np.ndarray, "B S"]
    tokens: Int[np.ndarray, "B T"]
    targets: Int[np.ndarray, "B T"]
    weights: Float[np.ndarray, "B T"]


class Seq2SeqBatches(Batches):
    """Seq2SeqBatches of token sequences, in groups of like lengths.

        group of (x_1 … x_m, y_1 … y_n)  =  (m, n + 1), both rounded up to `multiple`

    The rows of a batch come from one group, so a program is compiled for each group and not for each length. A group is
    drawn as often as it has pairs, and its rows are drawn with replacement: every pair is equally likely.

    Args:
        sources: one integer array `[m]` per pair, none of them empty.
        targets: one integer array `[n]` per pair; it may be empty.
        start: the token before the first of a target.
        stop: the token that follows the last.
        multiple: what lengths are rounded up to.
        longest: no array is longer, rounded up or not: pairs with m or n + 1 above it are left out, and `left_out` says
            how many. None keeps all.

    Returns:
        A source of `Seq2SeqBatch` for `training.fit` and `training.make_evaluate`. `shapes` maps the `(S, T)` of each
        group to its number of pairs, `order` holds the numbers of the pairs as the evaluation goes through them.

    Raises:
        ValueError: if there are more sources than targets or fewer, a source is empty, no pair is left, or a number is
            out of range.
        TypeError: if an array is not of integers, or a number not an int.

    Example:
        >>> from jax_attention import data
        >>> pairs = data.Seq2SeqBatches([[5], [5, 6, 7], [6]], [[7], [], [8]], start=1, stop=2, multiple=2)
        >>> pairs.shapes
        {(2, 2): 2, (4, 2): 1}

    Reference:
        https://www.tensorflow.org/api_docs/python/tf/data/Dataset#bucket_by_sequence_length
    """

    def __init__(
        self, sources: Any, targets: Any, *, start: int, stop: int, multiple: int = 8, longest: int | None = None
    ) -> None:
        start, stop = (check_int(n, x, 0, "It is a token.") for n, x in (("start", start), ("stop", stop)))
        check_int("multiple", multiple, 1, "1 rounds nothing.")
        if longest is not None:
            check_int("longest", longest, 1, "None keeps all pairs.")
        self._sources = as_tokens("sources", _listed("sources", sources))
        targets = as_tokens("targets", _listed("targets", targets))
        _check_pairs(self._sources, targets)
        self._targets = _between(targets, start, stop)
        sizes = np.stack([np.diff(self._sources.starts), np.diff(targets.starts) + 1], axis=1)
        kept = np.flatnonzero(sizes.max(axis=1) <= (sizes.max() if longest is None else longest))
        fail_unless(
            len(kept) > 0,
            f"longest: expected room for at least one pair, got {longest} where the shortest needs "
            f"{sizes.max(axis=1).min()}. Raise it.",
        )
        rounded = -(-sizes[kept] // multiple) * multiple
        shapes, group, counts = np.unique(
            rounded if longest is None else np.minimum(rounded, longest),
            axis=0,
            return_inverse=True,
            return_counts=True,
        )
        self.order = kept[np.argsort(group.reshape(-1), kind="stable")]
        self.shapes = {(int(s), int(t)): int(n) for (s, t), n in zip(shapes, counts, strict=True)}
        self._first = np.cumsum([0, *counts])
        self.left_out = len(sizes) - len(kept)
        self.predicted = int(sizes[kept, 1].sum())
        self.evaluation_rows = len(kept)

    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Seq2SeqBatch:
        check_address(seed, step)
        wanted = row_numbers(batch_size, rows)
        rng = np.random.default_rng((seed, step))
        group = int(np.searchsorted(self._first, rng.integers(self.evaluation_rows), side="right")) - 1
        numbers = rng.integers(self._first[group], self._first[group + 1], size=batch_size)[wanted]
        return self._fill(self.order[numbers], list(self.shapes)[group], np.ones(len(wanted), bool))

    def evaluation_steps(self, batch_size: int) -> int:
        check_batch_size(batch_size)
        return sum(-(-count // batch_size) for count in self.shapes.values())

    def evaluation_batches(self, batch_size: int, rows: slice | None = None) -> Iterator[Seq2SeqBatch]:
        """Each pair once, group by group; the last batch of each group is filled up with rows of weight 0."""
        wanted = row_numbers(batch_size, rows)
        return (
            self._evaluation_batch(group, first + wanted)
            for group, count in enumerate(self.shapes.values())
            for first in range(0, count, batch_size)
        )

    def _evaluation_batch(self, group: int, numbers: Int[np.ndarray, "B"]) -> Seq2SeqBatch:
        """Seq2SeqBatches of a group by number; numbers from its count on are padding."""
        first, end = self._first[group], self._first[group + 1]
        pairs = self.order[np.minimum(first + numbers, end - 1)]
        return self._fill(pairs, list(self.shapes)[group], first + numbers < end)

    def _fill(self, pairs: Int[np.ndarray, "B"], shape: tuple[int, int], real: Bool[np.ndarray, "B"]) -> Seq2SeqBatch:
        """The arrays of some pairs. A row that is not real has nothing to write but one token to read, so that every
        model finds something to attend to and no row is 0 / 0."""
        source, known = _rows(self._sources, pairs, shape[0], 0, real)
        known[:, 0] = True
        tokens, _ = _rows(self._targets, pairs, shape[1], 0, real)
        targets, counts = _rows(self._targets, pairs, shape[1], 1, real)
        tokens = np.where(counts, tokens, 0)  # without the token `stop`, which nothing follows
        return Seq2SeqBatch(source, _positions(known), tokens, targets, counts.astype(np.float32))


def pad_rows(rows: Any) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]:
    """Token sequences as one array, and where each token stands.

        [[5, 6, 7], [8]]  ->  tokens [[5, 6, 7], [8, 0, 0]],  positions [[0, 1, 2], [0, EMPTY, EMPTY]]

    Args:
        rows: one integer array `[n]` per row, none of them empty.

    Returns:
        `(tokens, positions)`, int32 `[B, S]` both, S the longest n: what `model.condition(tokens, positions=positions)`
        takes.

    Raises:
        ValueError: if there is no row, or an empty one.
        TypeError: if a row is not an array of integers.

    Example:
        >>> from jax_attention import data
        >>> tokens, positions = data.pad_rows([[5, 6, 7], [8]])
        >>> tokens.tolist(), positions[0].tolist()
        ([[5, 6, 7], [8, 0, 0]], [0, 1, 2])

    Reference:
        See `Seq2SeqBatch`.
    """
    tokens = as_tokens("rows", _listed("rows", rows))
    fail_unless(len(tokens) > 0, "rows: expected at least one row, got none.")
    _check_filled("rows", tokens)
    every = np.arange(len(tokens))
    found, known = _rows(tokens, every, int(np.diff(tokens.starts).max()), 0, np.ones(len(tokens), bool))
    return found, _positions(known)


def _listed(name: str, rows: Any) -> list:
    """One array per entry: a whole array `[B, n]` is the list of its rows."""
    if not isinstance(rows, Iterable) or isinstance(rows, (str, bytes)):
        raise TypeError(
            f"{name}: expected a list of integer arrays, got {describe_array(rows)}. Encode: "
            "tokenizer.encode_many(texts)."
        )
    return list(rows)


def _check_pairs(sources: Tokens, targets: Tokens) -> None:
    fail_unless(
        len(sources) == len(targets),
        f"targets: expected one for each of the {len(sources)} sources, got {len(targets)}. Pass lists of one length.",
    )
    fail_unless(len(sources) > 0, "sources: expected at least one pair, got none.")
    _check_filled("sources", sources)


def _check_filled(name: str, tokens: Tokens) -> None:
    empty = np.flatnonzero(np.diff(tokens.starts) == 0)
    fail_unless(
        len(empty) == 0,
        f"{name}: expected at least one token in each, got none in number {empty[0] if len(empty) else ''}. Drop it.",
    )


def _between(targets: Tokens, start: int, stop: int) -> Tokens:
    """Each target with `start` before it and `stop` behind it."""
    sizes = np.diff(targets.starts)
    starts = targets.starts + 2 * np.arange(len(targets) + 1)
    ids = np.full(starts[-1], stop, np.int32)
    ids[starts[:-1]] = start
    ids[np.arange(len(targets.ids)) + np.repeat(2 * np.arange(len(targets)) + 1, sizes)] = targets.ids
    return Tokens(ids, starts, 1 + max(start, stop, targets.vocab_size - 1))


def _rows(
    tokens: Tokens, pairs: Int[np.ndarray, "B"], width: int, skipped: int, real: Bool[np.ndarray, "B"]
) -> tuple[Int[np.ndarray, "B width"], Bool[np.ndarray, "B width"]]:
    """Some of the sequences without their first `skipped` tokens, 0 where none is, and where one is."""
    begins = tokens.starts[pairs] + skipped
    sizes = np.where(real, tokens.starts[pairs + 1] - begins, 0)
    known = np.arange(width) < sizes[:, None]
    places = np.minimum(begins[:, None] + np.arange(width), len(tokens.ids) - 1)
    return np.where(known, np.asarray(tokens.ids)[places], 0).astype(np.int32), known


def _positions(known: Bool[np.ndarray, "B S"]) -> Int[np.ndarray, "B S"]:
    return np.where(known, np.arange(known.shape[1]), EMPTY_POSITION).astype(np.int32)
