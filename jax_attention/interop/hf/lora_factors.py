"""The two factors of a low-rank change, from their layers to our kernels and back.

A kernel of ours may be several layers of theirs (query, key and value in one) or the other way round. Both directions
are exact: what is put together are blocks, so ranks add up, unless the layers share their first factor. An entry of a
family's table moves output features only, so it takes the second factor as it would take the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.interop.weight_mapping import Arrays, Entry

Factors = tuple[Any, Any]


def our_factors(
    entry: Entry, given: Sequence[Factors | None], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, Arrays]:
    """From theirs, `A [r, D]` and `B [F, r]` for each of their layers or None: one `[D, r]` for all kernels of the
    entry together, and a `[r, F]` for each. `shapes` are those of our kernels, here and below.
    """
    widths = [x.shape[0] for x in _theirs(entry, [np.zeros((1, shape[-1]), np.float32) for shape in shapes])]
    for name, x, width in zip(entry.theirs, given, widths, strict=True):
        fits = x is None or (x[0].shape[1:] == shapes[0][:1] and x[1].shape == (width, x[0].shape[0]))
        fail_unless(
            fits,
            f"path: expected factors [r, {shapes[0][0]}] and [{width}, r] for {name}, got "
            f"{', '.join(describe_array(y) for y in x or ())}. They are for another model.",
        )
    there = [x for x in given if x is not None]
    shared = len(there) == len(given) and all(np.array_equal(x[0], there[0][0]) for x in there)
    if shared:
        first, seconds = there[0][0], [x[1] for x in there]
    else:
        first, seconds = np.concatenate([x[0] for x in there]), _blocks([x and x[1].T for x in given], widths)
        seconds = [x.T for x in seconds]
    return first.T, [x.T for x in seconds] if entry.upright else entry.to_ours(seconds)


def their_factors(
    entry: Entry, given: Sequence[Factors | None], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, Arrays]:
    """From ours, `A [D, r]` and `B [r, F]` for each of our kernels or None: one `[D, r]` for all layers of theirs
    together, and a `[F, r]` for each.
    """
    first = np.concatenate([np.asarray(x[0]) for x in given if x is not None], axis=-1)
    return first, _theirs(entry, _blocks([x and np.asarray(x[1]) for x in given], [shape[-1] for shape in shapes]))


def _blocks(given: Sequence[np.ndarray | None], widths: Sequence[int]) -> list[np.ndarray]:
    """`[R, F]` for each, its own `[r, F]` in the rows that are its share of all R, zeros elsewhere."""
    there = [x for x in given if x is not None]
    rank, start, found = sum(x.shape[0] for x in there), 0, []
    for x, width in zip(given, widths, strict=True):
        block = np.zeros((rank, width), there[0].dtype)
        if x is not None:
            block[start : start + x.shape[0]] = x
            start += x.shape[0]
        found.append(block)
    return found


def _theirs(entry: Entry, kernels: Arrays) -> Arrays:
    """`[F, r]` from `[r, F]`, whichever way round their kernels stand."""
    found = entry.to_theirs(kernels)
    return [x.T for x in found] if entry.upright else found
