"""Batches of source and target token sequences, grouped by length so that little is padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.numerics import EMPTY_POSITION
from jax_attention.core.short_repr import short_repr
from jax_attention.data.sources import Batches, check_address, check_batch_size, row_numbers
from jax_attention.data.tokens import Tokens, as_tokens

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@short_repr
class Seq2SeqBatch(NamedTuple):
    """Batch of a sequence-to-sequence model: sources, decoder inputs and next-token targets, as NumPy arrays.

        source  x_1 … x_m        tokens  start y_1 … y_n        targets  y_1 … y_n stop

    Args:
        source: int32 `[B, S]`, 0 at padding.
        source_positions: int32 `[B, S]`: 0, 1, 2, …, and `cache.EMPTY` at padding, which no query attends to.
        tokens: int32 `[B, T]`, 0 at padding.
        targets: int32 `[B, T]`, the token after each of `tokens`; 0 at padding.
        weights: float32 `[B, T]`, weight of each target in the loss: 1, or 0 at padding.

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
    """Source of `Seq2SeqBatch`es for `training.fit` and `training.make_evaluate`; pairs are grouped by length.

        group of (x_1 … x_m, y_1 … y_n)  =  (S, T)  =  (m, n + 1), both rounded up to a multiple of `multiple`

    All rows of a batch come from one group, so a model compiles one program per group instead of one per length. A
    training batch draws a group in proportion to its number of pairs, and rows from it with replacement, so every pair
    is equally likely. The attribute `shapes` maps the `(S, T)` of each group to its number of pairs, and `order` holds
    the indices of the pairs in the order of the evaluation.

    Args:
        sources: one integer array `[m]` per pair, not empty.
        targets: one integer array `[n]` per pair, possibly empty.
        start: token before the first token of a target.
        stop: token after the last token of a target.
        multiple: S and T are rounded up to a multiple of it.
        longest: upper bound on S and T. Pairs with a larger m or n + 1 are left out; the attribute `left_out` is their
            number. None keeps all pairs.

    Raises:
        ValueError: if the numbers of sources and targets differ, a source is empty, no pair is left, or a number is out
            of range.
        TypeError: if an array is not of integers, or a number is not an int.

    Example:
        >>> from jax_attention import data
        >>> pairs = data.Seq2SeqBatches([[5], [5, 6, 7], [6]], [[7], [], [8]], start=1, stop=2, multiple=2)
        >>> pairs.shapes
        {(2, 2): 2, (4, 2): 1}

    Reference:
        https://www.tensorflow.org/api_docs/python/tf/data/Dataset#bucket_by_sequence_length, the same idea.
    """

    def __init__(
        self, sources: Any, targets: Any, *, start: int, stop: int, multiple: int = 8, longest: int | None = None
    ) -> None:
        start, stop = (check_int(n, x, 0, "It is a token id.") for n, x in (("start", start), ("stop", stop)))
        check_int("multiple", multiple, 1, "1 rounds nothing.")
        if longest is not None:
            check_int("longest", longest, 1, "None keeps all pairs.")
        self._sources = as_tokens("sources", _list_rows("sources", sources))
        targets = as_tokens("targets", _list_rows("targets", targets))
        _check_pairs(self._sources, targets)
        self._targets = _add_start_and_stop(targets, start, stop)
        sizes = np.stack([np.diff(self._sources.starts), np.diff(targets.starts) + 1], axis=1)
        chosen = np.flatnonzero(sizes.max(axis=1) <= (sizes.max() if longest is None else longest))
        fail_unless(
            len(chosen) > 0,
            f"longest: expected room for at least one pair, got {longest} where the shortest needs "
            f"{sizes.max(axis=1).min()}. Raise it.",
        )
        rounded = -(-sizes[chosen] // multiple) * multiple
        shapes, group, counts = np.unique(
            rounded if longest is None else np.minimum(rounded, longest),
            axis=0,
            return_inverse=True,
            return_counts=True,
        )
        self.order = chosen[np.argsort(group.reshape(-1), kind="stable")]
        self.shapes = {(int(s), int(t)): int(n) for (s, t), n in zip(shapes, counts, strict=True)}
        self._first = np.cumsum([0, *counts])
        self.left_out = len(sizes) - len(chosen)
        self.predicted = int(sizes[chosen, 1].sum())
        self.evaluation_rows = len(chosen)

    @property
    def tokens_by_field(self) -> dict[str, Tokens]:
        return {"tokens": self._targets, "source": self._sources}

    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Seq2SeqBatch:
        check_address(seed, step)
        selected = row_numbers(batch_size, rows)
        rng = np.random.default_rng((seed, step))
        group = int(np.searchsorted(self._first, rng.integers(self.evaluation_rows), side="right")) - 1
        numbers = rng.integers(self._first[group], self._first[group + 1], size=batch_size)[selected]
        return self._fill(self.order[numbers], list(self.shapes)[group], np.ones(len(selected), bool))

    def evaluation_steps(self, batch_size: int) -> int:
        check_batch_size(batch_size)
        return sum(-(-count // batch_size) for count in self.shapes.values())

    def evaluation_batches(self, batch_size: int, rows: slice | None = None) -> Iterator[Seq2SeqBatch]:
        """Batches of each pair once, group by group; rows of weight 0 fill up the last batch of each group."""
        selected = row_numbers(batch_size, rows)
        return (
            self._evaluation_batch(group, first + selected)
            for group, count in enumerate(self.shapes.values())
            for first in range(0, count, batch_size)
        )

    def _evaluation_batch(self, group: int, numbers: Int[np.ndarray, "B"]) -> Seq2SeqBatch:
        """The batch of the pairs with these numbers in a group; numbers beyond the group give padding rows."""
        first, end = self._first[group], self._first[group + 1]
        pairs = self.order[np.minimum(first + numbers, end - 1)]
        return self._fill(pairs, list(self.shapes)[group], first + numbers < end)

    def _fill(self, pairs: Int[np.ndarray, "B"], shape: tuple[int, int], real: Bool[np.ndarray, "B"]) -> Seq2SeqBatch:
        """The batch of these pairs, padded to `shape`; rows that are not `real` get weight 0."""
        source, is_token = _padded_rows(self._sources, pairs, shape[0], 0, real)
        # Padding rows keep one source token: over none, a model that averages source tokens computes 0 / 0, and NaN
        # times the weight 0 is still NaN.
        is_token[:, 0] = True
        tokens, _ = _padded_rows(self._targets, pairs, shape[1], 0, real)
        targets, has_target = _padded_rows(self._targets, pairs, shape[1], 1, real)
        tokens = np.where(has_target, tokens, 0)  # `stop` has no next token, so it is no decoder input
        return Seq2SeqBatch(source, _positions(is_token), tokens, targets, has_target.astype(np.float32))


def pad_rows(rows: Any) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]:
    """Pad token sequences to one array, and return it with the position of each token.

        [[5, 6, 7], [8]]  ->  tokens [[5, 6, 7], [8, 0, 0]],  positions [[0, 1, 2], [0, EMPTY, EMPTY]]

    Args:
        rows: one integer array `[n]` per row, not empty.

    Returns:
        `(tokens, positions)`, both int32 `[B, S]` with S the largest n, for
        `model.condition(tokens, positions=positions)`. At padding, tokens are 0 and positions `cache.EMPTY`.

    Raises:
        ValueError: if there is no row, or a row is empty.
        TypeError: if a row is not an array of integers.

    Example:
        >>> from jax_attention import data
        >>> tokens, positions = data.pad_rows([[5, 6, 7], [8]])
        >>> tokens.tolist(), positions[0].tolist()
        ([[5, 6, 7], [8, 0, 0]], [0, 1, 2])
    """
    tokens = as_tokens("rows", _list_rows("rows", rows))
    fail_unless(len(tokens) > 0, "rows: expected at least one row, got none.")
    _check_nonempty("rows", tokens)
    every_row, longest = np.arange(len(tokens)), int(np.diff(tokens.starts).max())
    padded, is_token = _padded_rows(tokens, every_row, longest, 0, np.ones(len(tokens), bool))
    return padded, _positions(is_token)


def _list_rows(name: str, rows: Any) -> list:
    """A list with one array per row; an array `[B, n]` is the list of its B rows."""
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
    _check_nonempty("sources", sources)


def _check_nonempty(name: str, tokens: Tokens) -> None:
    empty = np.flatnonzero(np.diff(tokens.starts) == 0)
    fail_unless(
        len(empty) == 0,
        f"{name}: expected at least one token in each, got none in number {empty[0] if len(empty) else ''}. Drop it.",
    )


def _add_start_and_stop(targets: Tokens, start: int, stop: int) -> Tokens:
    """Each target with `start` before its first token and `stop` after its last."""
    sizes = np.diff(targets.starts)
    starts = targets.starts + 2 * np.arange(len(targets) + 1)
    ids = np.full(starts[-1], stop, np.int32)
    ids[starts[:-1]] = start
    ids[np.arange(len(targets.ids)) + np.repeat(2 * np.arange(len(targets)) + 1, sizes)] = targets.ids
    return Tokens(ids, starts, 1 + max(start, stop, targets.vocab_size - 1))


def _padded_rows(
    tokens: Tokens, indices: Int[np.ndarray, "B"], width: int, skip: int, real: Bool[np.ndarray, "B"]
) -> tuple[Int[np.ndarray, "B width"], Bool[np.ndarray, "B width"]]:
    """Sequences by index, without their first `skip` tokens, padded with 0 to `width`; and which entries are tokens.

    Rows that are not `real` are all padding.
    """
    begins = tokens.starts[indices] + skip
    sizes = np.where(real, tokens.starts[indices + 1] - begins, 0)
    is_token = np.arange(width) < sizes[:, None]
    places = np.minimum(begins[:, None] + np.arange(width), len(tokens.ids) - 1)
    return np.where(is_token, np.asarray(tokens.ids)[places], 0).astype(np.int32), is_token


def _positions(is_token: Bool[np.ndarray, "B S"]) -> Int[np.ndarray, "B S"]:
    """0, 1, 2, … in each row, and the position of an empty cache slot at padding."""
    return np.where(is_token, np.arange(is_token.shape[1]), EMPTY_POSITION).astype(np.int32)
