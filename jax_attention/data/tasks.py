"""Synthetic sequence-to-sequence tasks with exactly one right answer: copy, reverse, sort and recall.

Tokens are 0 … V-1, so V and V + 1 are free for `start` and `stop` of `Seq2SeqBatches`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jax_attention.core.checks import check_instance, check_int, fail_unless

if TYPE_CHECKING:
    from jaxtyping import Int

    Rows = list[Int[np.ndarray, "n"]]

__all__ = ["copy", "recall", "reverse", "sort"]


def copy(rng: np.random.Generator, count: int, length: int | tuple[int, int], vocabulary: int) -> tuple[Rows, Rows]:
    """Draw pairs whose target is a copy of the source.

        y_i = x_i,        i = 1, …, n

    Args:
        rng: a NumPy generator.
        count: number of pairs.
        length: n, or `(least, most)`, all equally likely.
        vocabulary: V, the number of different tokens, drawn uniformly.

    Returns:
        `(sources, targets)`, lists of int32 arrays `[n]`.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if `rng` is not a NumPy generator, or a number is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> data.tasks.copy(np.random.default_rng(0), count=1, length=4, vocabulary=10)
        ([array([8, 6, 5, 2], dtype=int32)], [array([8, 6, 5, 2], dtype=int32)])

    Reference:
        Graves, Wayne, Danihelka (2014), "Neural Turing machines", section 4.1.
    """
    sources = _draw_rows(rng, count, length, vocabulary)
    return sources, [source.copy() for source in sources]


def reverse(rng: np.random.Generator, count: int, length: int | tuple[int, int], vocabulary: int) -> tuple[Rows, Rows]:
    """Draw pairs whose target is the source in reverse order.

        y_i = x_{n + 1 - i},        i = 1, …, n

    Args:
        rng: a NumPy generator.
        count: number of pairs.
        length: n, or `(least, most)`, all equally likely.
        vocabulary: V, the number of different tokens, drawn uniformly.

    Returns:
        `(sources, targets)`, lists of int32 arrays `[n]`.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if `rng` is not a NumPy generator, or a number is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> data.tasks.reverse(np.random.default_rng(0), count=1, length=4, vocabulary=10)
        ([array([8, 6, 5, 2], dtype=int32)], [array([2, 5, 6, 8], dtype=int32)])

    Reference:
        Sutskever, Vinyals, Le (2014), "Sequence to sequence learning", section 3.3, which reverses its sources.
    """
    sources = _draw_rows(rng, count, length, vocabulary)
    return sources, [source[::-1].copy() for source in sources]


def sort(rng: np.random.Generator, count: int, length: int | tuple[int, int], vocabulary: int) -> tuple[Rows, Rows]:
    """Draw pairs whose target is the sorted source.

        y = the permutation of x with  y_1 <= y_2 <= … <= y_n

    Args:
        rng: a NumPy generator.
        count: number of pairs.
        length: n, or `(least, most)`, all equally likely.
        vocabulary: V, the number of different tokens, drawn uniformly.

    Returns:
        `(sources, targets)`, lists of int32 arrays `[n]`.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if `rng` is not a NumPy generator, or a number is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> data.tasks.sort(np.random.default_rng(2), count=1, length=4, vocabulary=10)
        ([array([8, 2, 1, 2], dtype=int32)], [array([1, 2, 2, 8], dtype=int32)])

    Reference:
        Vinyals, Bengio, Kudlur (2016), "Order matters: sequence to sequence for sets", section 5.1.
    """
    sources = _draw_rows(rng, count, length, vocabulary)
    return sources, [np.sort(source) for source in sources]


def recall(
    rng: np.random.Generator,
    count: int,
    length: int | tuple[int, int],
    vocabulary: int,
    *,
    distance: int | None = None,
) -> tuple[Rows, Rows]:
    """Draw pairs that ask for the value of one key: associative recall.

        x = k_1 v_1 k_2 v_2 … k_n v_n ? k_j,        y = v_j,        j = n + 1 - distance

    The keys of a source differ, so there is one right answer. With K = (V - 1) // 2, keys are 0 … K-1, values K … 2K-1,
    and the question mark is V-1.

    Args:
        rng: a NumPy generator.
        count: number of pairs of source and target.
        length: n, the number of keys in a source, at most K; or `(least, most)`, all equally likely.
        vocabulary: V, the number of different tokens.
        distance: distance of the queried key from the end of the list, 1 for the last key; None draws it uniformly.

    Returns:
        `(sources, targets)`, lists of int32 arrays `[2n + 2]` and `[1]`.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if `rng` is not a NumPy generator, or a number is not an int.

    Example:
        >>> import numpy as np
        >>> from jax_attention import data
        >>> data.tasks.recall(np.random.default_rng(0), count=1, length=2, vocabulary=21, distance=2)
        ([array([ 4, 15,  6, 16, 20,  4], dtype=int32)], [array([15], dtype=int32)])

    Reference:
        Graves, Wayne, Danihelka (2014), "Neural Turing machines", section 4.3; Ba et al. (2016), "Using fast weights to
        attend to the recent past", section 4.1.
    """
    sizes = _draw_sizes(rng, count, length)
    key_count = (check_int("vocabulary", vocabulary, 3, "A key, a value and the question mark are 3.") - 1) // 2
    most = sizes.max(initial=0)
    fail_unless(
        most <= key_count,
        f"length: expected at most the {key_count} different keys of a vocabulary of {vocabulary}, got {most}. Take "
        f"vocabulary={2 * most + 1}.",
    )
    if distance is not None:
        check_int("distance", distance, 1, "The last key is at distance 1.")
        fail_unless(
            distance <= sizes.min(initial=distance),
            f"distance: expected at most the {sizes.min(initial=distance)} keys of a source, got {distance}.",
        )
    sources, targets = [], []
    for n in sizes.tolist():
        keys, values = rng.permutation(key_count)[:n], key_count + rng.integers(key_count, size=n)
        query = n - (distance if distance is not None else 1 + int(rng.integers(n)))
        key_value_list = np.stack([keys, values], axis=1).reshape(-1)
        sources.append(np.concatenate([key_value_list, [vocabulary - 1, keys[query]]]).astype(np.int32))
        targets.append(values[query : query + 1].astype(np.int32))
    return sources, targets


def _draw_rows(rng: np.random.Generator, count: int, length: int | tuple[int, int], vocabulary: int) -> Rows:
    """Rows of uniformly drawn tokens."""
    sizes = _draw_sizes(rng, count, length)
    check_int("vocabulary", vocabulary, 1, "It is the number of different tokens.")
    ids = rng.integers(vocabulary, size=sizes.sum(), dtype=np.int32)
    return np.split(ids, np.cumsum(sizes)[:-1]) if count else []


def _draw_sizes(rng: np.random.Generator, count: int, length: int | tuple[int, int]) -> Int[np.ndarray, "count"]:
    """The length of each row, after a check of the arguments that all tasks share."""
    check_instance("rng", rng, np.random.Generator, "a NumPy generator", "Make one: np.random.default_rng(seed).")
    check_int("count", count, 0, "It is the number of pairs.")
    least, most = length if isinstance(length, tuple) and len(length) == 2 else (length, length)
    check_int("length", least, 1, "It is an int or (least, most).")
    check_int("length", most, least, "It is an int or (least, most).")
    return rng.integers(least, most, size=count, endpoint=True) if most > least else np.full(count, least)
