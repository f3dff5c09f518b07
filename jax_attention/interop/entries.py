"""Which array of theirs is which array of ours: a converter is a table of entries and nothing else.

An entry is two functions between a few of their arrays and a few of ours, each the other's inverse. PyTorch's linear
layers keep `[out, in]`, ours `[in, out]`, so most entries turn their array over; some also join or part arrays, since
query, key and value may stand in one array or in three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jax_attention.core.tree_paths import list_problems

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Entry:
    """Some arrays of theirs, the same numbers as some arrays of ours."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to_ours: Callable[[Arrays], Arrays]
    to_theirs: Callable[[Arrays], Arrays]
    upright: bool = False
    """A kernel that is `[in, out]` on their side too."""


def same(ours: str, theirs: str) -> Entry:
    """One array, as it is: biases, embeddings, scales of norms."""
    return Entry((ours,), (theirs,), list, list)


def upright(ours: str, theirs: str) -> Entry:
    """A kernel `[in, out]` on both sides: the Conv1D of GPT-2."""
    return Entry((ours,), (theirs,), list, list, upright=True)


def turned(ours: str, theirs: str) -> Entry:
    """A kernel `[in, out]` of ours, their `[out, in]`."""
    return Entry((ours,), (theirs,), _transposed, _transposed)


def reshaped(ours: str, theirs: str, our_shape: tuple[int, ...], their_shape: tuple[int, ...]) -> Entry:
    """The same numbers in the same order, cut otherwise; another shape stays as it is, for `filled` to complain of."""
    return Entry(
        (ours,),
        (theirs,),
        lambda x: [x[0].reshape(our_shape) if x[0].shape == their_shape else x[0]],
        lambda x: [x[0].reshape(their_shape)],
    )


def shifted(ours: str, theirs: str, by: float) -> Entry:
    """`ours = theirs + by`: Gemma keeps the scales of its norms less one."""
    return Entry((ours,), (theirs,), partial(_plus, by), partial(_plus, -by))


def behind(ours: str, theirs: str, count: int, unused: int) -> Entry:
    """The last `count` rows of a table of theirs, whose first ones nobody reads: written as `unused` zeros."""
    return Entry(
        (ours,),
        (theirs,),
        lambda x: [x[0][-count:] if len(x[0]) == count + unused else x[0]],
        lambda x: [np.concatenate([np.zeros((unused, *x[0].shape[1:]), x[0].dtype), x[0]])],
    )


def twice(ours: str, theirs: str, unread: str) -> Entry:
    """One array that they keep under two names and read under the first."""
    return Entry((ours,), (theirs, unread), lambda x: [x[0]], lambda x: [x[0], x[0]])


def joined(ours: str, theirs: Sequence[str], sizes: Sequence[int]) -> Entry:
    """Several of theirs stand one after the other, by their first axis, in one of ours, by its last."""
    return Entry(
        (ours,),
        tuple(theirs),
        lambda x: [np.concatenate(x, axis=0).T],
        lambda x: np.split(x[0].T, np.cumsum(sizes)[:-1], axis=0),
    )


def parted(ours: Sequence[str], theirs: str, sizes: Sequence[int]) -> Entry:
    """One of theirs holds, along its first axis, several of ours."""
    return Entry(
        tuple(ours),
        (theirs,),
        lambda x: _transposed(np.split(x[0], np.cumsum(sizes)[:-1], axis=0)),
        lambda x: [np.concatenate(_transposed(x), axis=0)],
    )


def head_by_head(ours: str, theirs: str, num_heads: int) -> Entry:
    """GPT-NeoX: query, key and value of the first head, then those of the second, …; ours has all queries first."""

    def regrouped(x: np.ndarray, outer: int, inner: int) -> np.ndarray:
        return x.reshape(outer, inner, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)

    return Entry(
        (ours,),
        (theirs,),
        lambda x: [regrouped(x[0], num_heads, 3).T],
        lambda x: [regrouped(x[0].T, 3, num_heads)],
    )


def _transposed(arrays: Arrays) -> Arrays:
    return [x.T for x in arrays]


def _plus(number: float, arrays: Arrays) -> Arrays:
    """In at least float32: half precision has few digits left beside a one."""
    return [x.astype(np.result_type(x.dtype, np.float32)) + np.float32(number) for x in arrays]


def to_ours(entries: Iterable[Entry], theirs: Mapping[str, np.ndarray], what: str) -> dict[str, np.ndarray]:
    """Our arrays from theirs; none may be missing and none left over."""
    entries = list(entries)
    known = {name for entry in entries for name in entry.theirs}
    problems = {"missing": sorted(known - theirs.keys()), "unused": sorted(theirs.keys() - known)}
    if any(problems.values()):
        raise ValueError(f"{what}, got {list_problems(problems)}.")
    return _converted(entries, theirs, lambda e: (e.theirs, e.ours, e.to_ours))


def to_theirs(entries: Iterable[Entry], ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their arrays from ours."""
    return _converted(entries, ours, lambda e: (e.ours, e.theirs, e.to_theirs))


def _converted(entries: Iterable[Entry], given: Mapping[str, np.ndarray], sides: Callable[[Entry], Any]) -> dict:
    found: dict[str, np.ndarray] = {}
    for entry in entries:
        names, wanted, convert = sides(entry)
        found |= zip(wanted, convert([given[name] for name in names]), strict=True)
    return found
