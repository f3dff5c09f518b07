"""Batches as pure functions of (seed, step): the base of all sources, and plain windows of a stream of tokens."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.data.tokens import Tokens, as_tokens

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Batch(NamedTuple):
    """Rows of tokens and what follows each of them; NumPy arrays of one shape `[B, T]`.

        loss = sum(weights * cross_entropy(logits, targets)) / sum(weights)

    Args:
        tokens: int32 `[B, T]`.
        targets: int32 `[B, T]`, the next tokens; 0 where the weight is 0.
        weights: float32 `[B, T]`, 1 where the target counts, 0 in padding and at the end of a document.
        positions: int32 `[B, T]`, or None for 0 … T-1 in every row.
        segment_ids: int32 `[B, T]`: documents count from 1 in each row, 0 is padding; None if a row is one text.

    Returns:
        A tuple; a pytree.

    Raises:
        Nothing.

    Example:
        >>> from jax_attention import data
        >>> data.Windows([1, 2, 3, 4], length=3).batch(seed=0, step=0, batch_size=1).targets
        array([[2, 3, 4]], dtype=int32)

    Reference:
        See `Windows` and `PackedDocuments`.
    """

    tokens: Int[np.ndarray, "B T"]
    targets: Int[np.ndarray, "B T"]
    weights: Float[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"] | None = None
    segment_ids: Int[np.ndarray, "B T"] | None = None


class Batches(abc.ABC):
    """What `training.fit` and `training.make_evaluate` ask of a source: training batches, and everything once."""

    predicted: int
    """How many tokens one evaluation predicts: the sum of all its weights."""
    evaluation_rows: int
    """How many rows hold everything once."""

    @abc.abstractmethod
    def batch(self, seed: int, step: int, batch_size: int, rows: slice | None = None) -> Any:
        """The training batch of a step.

        Args:
            seed: of the order of the data, from 0.
            step: from 0.
            batch_size: B of the whole batch, over all processes.
            rows: the part of it that is wanted, such as `slice(4, 8)`; equal to slicing the whole.

        Returns:
            A named tuple of arrays.
        """

    @abc.abstractmethod
    def evaluation_steps(self, batch_size: int) -> int:
        """How many batches `evaluation_batches` gives."""

    @abc.abstractmethod
    def evaluation_batches(self, batch_size: int, rows: slice | None = None) -> Iterator[Any]:
        """Everything once, filled up with rows of weight 0. `rows` works as in `batch`."""


class Source(Batches):
    """Where batches come from; it holds tokens and no state.

        batch = source.batch(seed, step, batch_size)

    A subclass says `batch`, how many rows cover everything once (`evaluation_rows`) and what those rows are.

    Args:
        tokens: `Tokens`, or an integer array `[N]`, or one array per document.
        length: T, the tokens in a row.

    Returns:
        A source.

    Raises:
        ValueError: if no token has a next one, or `length` is smaller than 1.
        TypeError: when the base class itself is called, or `length` is not an int.

    Example:
        >>> from jax_attention import data
        >>> isinstance(data.Windows([1, 2, 3], length=2), data.Source)
        True

    Reference:
        https://github.com/google/grain: batches addressed by their number, so that a restart replays nothing.
    """

    tokens: Tokens
    length: int

    def __init__(self, tokens: Tokens | Any, length: int) -> None:
        self.tokens = as_tokens("tokens", tokens)
        self.length = check_int("length", length, 1, "It is the number of tokens in a row.")
        self._ids = np.asarray(self.tokens.ids)  # a memory map's own indexing is slower

    @abc.abstractmethod
    def _evaluation_batch(self, rows: Int[np.ndarray, "B"]) -> Batch:
        """Rows of the evaluation, by number; numbers from `evaluation_rows` on are padding."""

    def evaluation_steps(self, batch_size: int) -> int:
        return -(-self.evaluation_rows // check_batch_size(batch_size))

    def evaluation_batches(self, batch_size: int, rows: slice | None = None) -> Iterator[Batch]:
        """Everything once, in order. Each token is predicted exactly once, but the first of the stream (each document).

        All batches have one shape; the last is filled with rows of weight 0. `rows` works as in `batch`.
        """
        steps, wanted = self.evaluation_steps(batch_size), row_numbers(batch_size, rows)
        return (self._evaluation_batch(wanted + step * batch_size) for step in range(steps))


class Windows(Source):
    """Windows of T tokens at random places of one stream of tokens.

        tokens = ids[o : o + T],    targets = ids[o + 1 : o + 1 + T],    o uniform over 0 … N - T - 1

    Ends of documents are not looked at. The evaluation lays windows side by side instead.

    Args:
        tokens: `Tokens`, or an integer array `[N]`, N at least 2.
        length: T. Training batches need N > T; an evaluation pads.

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
        wanted = row_numbers(batch_size, rows)
        places = len(self._ids) - self.length
        fail_unless(
            places > 0,
            f"length: expected fewer than the {len(self._ids)} tokens of the text, got {self.length}. Make windows "
            "shorter, or the text longer.",
        )
        offsets = np.random.default_rng((seed, step)).integers(places, size=batch_size)[wanted]
        block = self._ids[offsets[:, None] + np.arange(self.length + 1)].astype(np.int32)
        weights = np.ones((len(wanted), self.length), np.float32)
        return Batch(np.ascontiguousarray(block[:, :-1]), np.ascontiguousarray(block[:, 1:]), weights)

    def _evaluation_batch(self, rows: Int[np.ndarray, "B"]) -> Batch:
        places = rows[:, None] * self.length + np.arange(self.length)
        real = places < self.predicted
        places = np.minimum(places, self.predicted - 1)
        tokens, targets = (np.where(real, self._ids[places + shift], 0).astype(np.int32) for shift in (0, 1))
        return Batch(tokens, targets, real.astype(np.float32))


def row_numbers(batch_size: int, rows: slice | None) -> Int[np.ndarray, "b"]:
    """The numbers of the wanted rows of a batch."""
    check_batch_size(batch_size)
    fail_unless(
        rows is None or isinstance(rows, slice),
        f"rows: expected None or a slice of the batch, got {describe_array(rows)}. The first four are slice(0, 4).",
        TypeError,
    )
    return np.arange(batch_size)[rows if rows is not None else slice(None)]


def check_address(seed: int, step: int) -> None:
    """Seed and step say which batch is meant."""
    check_int("seed", seed, 0, "Seeds count from 0.")
    check_int("step", step, 0, "Steps count from 0; convert a jax array first: int(step).")


def check_batch_size(batch_size: int) -> int:
    """Rows over all processes."""
    return check_int("batch_size", batch_size, 1, "It is the number of rows, over all processes.")
