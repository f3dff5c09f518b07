"""Batches as pure functions of (seed, step): base classes of all sources, and random windows of a token stream."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.data.tokens import Tokens, as_tokens

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@short_repr
class Batch(NamedTuple):
    """Batch of a language model: rows of tokens and the next token of each, as NumPy arrays `[B, T]`.

        loss = sum(weights * cross_entropy(logits, targets)) / sum(weights)

    Args:
        tokens: int32 `[B, T]`.
        targets: int32 `[B, T]`, the token after each of `tokens`; 0 where the weight is 0.
        weights: float32 `[B, T]`, weight of each target in the loss: 1, or 0 in padding and at the end of a document.
        positions: int32 `[B, T]`, or None for 0 … T-1 in every row.
        segment_ids: int32 `[B, T]`, documents of a row numbered from 1, and 0 in padding; None if a row is one text.

    Example:
        >>> from jax_attention import data
        >>> data.Windows([1, 2, 3, 4], length=3).batch(seed=0, step=0, batch_size=1).targets
        array([[2, 3, 4]], dtype=int32)
    """

    tokens: Int[np.ndarray, "B T"]
    targets: Int[np.ndarray, "B T"]
    weights: Float[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"] | None = None
    segment_ids: Int[np.ndarray, "B T"] | None = None


class Batches(abc.ABC):
    """Interface of the data sources of `training.fit` and `training.make_evaluate`."""

    predicted: int
    """Number of tokens that one evaluation predicts: the sum of the weights of all its batches."""
    evaluation_rows: int
    """Number of rows of one evaluation, without padding rows."""

    @property
    def tokens_by_field(self) -> dict[str, Tokens]:
        """The tokens that the fields "tokens" and "source" of a batch are taken from, to compare vocabularies."""
        return {}

    @abc.abstractmethod
    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Any:
        """The training batch of a step, a pure function of its arguments.

        Args:
            seed: seed of the order of the data, from 0.
            step: training step, from 0.
            batch_size: B, the rows of the whole batch over all processes.
            rows: the rows to return, such as `slice(4, 8)`; the same numbers as a slice of the whole batch. None
                returns all rows.

        Returns:
            A named tuple of arrays.
        """

    @abc.abstractmethod
    def evaluation_steps(self, batch_size: int) -> int:
        """Number of batches that `evaluation_batches` yields."""

    @abc.abstractmethod
    def evaluation_batches(self, batch_size: int, rows: slice | None = None) -> Iterator[Any]:
        """Batches that hold all data once; rows of weight 0 fill up the last. `rows` is that of `batch`."""


class Source(Batches):
    """Base class of sources of `Batch`es of one length; holds tokens and no other state.

        batch = source.batch(seed, step, batch_size)

    A subclass defines `batch`, `_evaluation_batch` and the attributes `evaluation_rows` and `predicted`.

    Args:
        tokens: `Tokens`, or an integer array `[N]`, or one array per document.
        length: T, the number of tokens in a row.

    Raises:
        ValueError: if no token has a next one, or `length` is smaller than 1.
        TypeError: if the base class itself is instantiated, or `length` is not an int.

    Example:
        >>> from jax_attention import data
        >>> isinstance(data.Windows([1, 2, 3], length=2), data.Source)
        True

    Reference:
        https://github.com/google/grain, where records also have numbers, so that a restart replays nothing.
    """

    tokens: Tokens
    length: int

    def __init__(self, tokens: Tokens | Any, length: int) -> None:
        self.tokens = as_tokens("tokens", tokens)
        self.length = check_int("length", length, 1, "It is the number of tokens in a row.")
        self._ids = np.asarray(self.tokens.ids)  # indexing np.memmap itself is slower

    @property
    def tokens_by_field(self) -> dict[str, Tokens]:
        return {"tokens": self.tokens}

    @abc.abstractmethod
    def _evaluation_batch(self, rows: Int[np.ndarray, "B"]) -> Batch:
        """The batch of the evaluation rows with these numbers; numbers from `evaluation_rows` on give padding rows."""

    def evaluation_steps(self, batch_size: int) -> int:
        return -(-self.evaluation_rows // check_batch_size(batch_size))

    def evaluation_batches(self, batch_size: int, rows: slice | None = None) -> Iterator[Batch]:
        """Batches that predict every token once, in order, except the first of the stream (or of each document).

        All batches have one shape; rows of weight 0 fill up the last. `rows` is that of `batch`.
        """
        steps, selected = self.evaluation_steps(batch_size), row_numbers(batch_size, rows)
        return (self._evaluation_batch(selected + step * batch_size) for step in range(steps))


class Windows(Source):
    """Source of windows of T tokens at random offsets of one token stream.

        tokens = ids[o : o + T],    targets = ids[o + 1 : o + 1 + T],    o uniform over 0 … N - T - 1

    Documents are concatenated, and windows cross their boundaries. The evaluation uses adjacent windows instead.

    Args:
        tokens: `Tokens`, or an integer array `[N]`, N at least 2.
        length: T, the number of tokens in a row. Training batches need N > T; an evaluation pads.

    Returns:
        A `Source` whose batches have no positions and no segment ids.

    Raises:
        ValueError: if there are fewer than 2 tokens, or `length` is smaller than 1. By `batch`, if N <= T, or an
            argument is out of range.
        TypeError: if `length` is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> source = data.Windows(np.arange(100), length=4)
        >>> source.batch(seed=0, step=7, batch_size=2).tokens.shape
        (2, 4)

    Reference:
        `get_batch` in nanoGPT's `train.py`.
    """

    def __init__(self, tokens: Tokens | Any, length: int) -> None:
        super().__init__([tokens] if isinstance(tokens, (list, tuple)) else tokens, length)
        count = len(self._ids)
        fail_unless(
            count >= 2, f"tokens: expected at least 2 tokens, one and the next, got {count}. The text is too short."
        )
        self.predicted = count - 1
        self.evaluation_rows = -(-self.predicted // self.length)

    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Batch:
        check_address(seed, step)
        selected = row_numbers(batch_size, rows)
        offset_count = len(self._ids) - self.length
        fail_unless(
            offset_count > 0,
            f"length: expected fewer than the {len(self._ids)} tokens of the text, got {self.length}. Make windows "
            "shorter, or the text longer.",
        )
        # Offsets of the whole batch are drawn first: then the rows of each process are a slice of the same batch.
        offsets = np.random.default_rng((seed, step)).integers(offset_count, size=batch_size)[selected]
        block = self._ids[offsets[:, None] + np.arange(self.length + 1)].astype(np.int32)
        weights = np.ones((len(selected), self.length), np.float32)
        return Batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]), weights)

    def _evaluation_batch(self, rows: Int[np.ndarray, "B"]) -> Batch:
        places = rows[:, None] * self.length + np.arange(self.length)
        real = places < self.predicted
        places = np.minimum(places, self.predicted - 1)
        tokens, targets = (np.where(real, self._ids[places + shift], 0).astype(np.int32) for shift in (0, 1))
        return Batch(tokens, targets, real.astype(np.float32))


def row_numbers(batch_size: int, rows: slice | None) -> Int[np.ndarray, "b"]:
    """Indices of the rows that the slice `rows` takes from a batch."""
    check_batch_size(batch_size)
    fail_unless(
        rows is None or isinstance(rows, slice),
        f"rows: expected None or a slice of the batch, got {describe_array(rows)}. The first four are slice(0, 4).",
        TypeError,
    )
    return np.arange(batch_size)[rows if rows is not None else slice(None)]


def check_address(seed: int, step: int) -> None:
    """Check the two numbers that identify a training batch."""
    check_int("seed", seed, 0, "Seeds count from 0.")
    check_int("step", step, 0, "Steps count from 0; convert a jax array first: int(step).")


def check_batch_size(batch_size: int) -> int:
    """Check B, the number of rows over all processes."""
    return check_int("batch_size", batch_size, 1, "It is the number of rows, over all processes.")
