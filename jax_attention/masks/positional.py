"""Masks that are functions of the two positions alone; blockwise evaluation skips tiles that they leave empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from jax_attention.core.checks import check_int, check_lengths, fail_unless
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.masks.base import Mask
from jax_attention.masks.block_coverage import BlockCoverage, TileRanges

if TYPE_CHECKING:
    from jaxtyping import Array, Int


@struct
class Causal(Mask):
    """`k_pos <= q_pos + offset`; see `causal`."""

    offset: int = 0

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return k_pos <= q_pos + self.offset

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        return tiles.coverage(
            tiles.k_low <= tiles.q_high + self.offset,
            tiles.k_high <= tiles.q_low + self.offset,
        )


@struct
class SlidingWindow(Mask):
    """`q_pos - left < k_pos - offset <= q_pos + right`; see `sliding_window`."""

    left: int | None
    right: int | None = 0
    offset: int = 0

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        ahead = k_pos - (q_pos + self.offset)
        allowed = ahead == ahead  # True in the shape of the tile, for a side without a limit
        if self.left is not None:
            allowed = allowed & (ahead > -self.left)
        if self.right is not None:
            allowed = allowed & (ahead <= self.right)
        return allowed

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        low = tiles.k_low - (tiles.q_high + self.offset)
        high = tiles.k_high - (tiles.q_low + self.offset)
        nonempty = full = low <= high  # always True; in the shape of the grid
        if self.left is not None:
            nonempty, full = nonempty & (high > -self.left), full & (low > -self.left)
        if self.right is not None:
            nonempty, full = nonempty & (low <= self.right), full & (high <= self.right)
        return tiles.coverage(nonempty, full)


@struct
class Prefix(Mask):
    """`k_pos < length`; see `prefix`."""

    length: jax.Array | int = array_field(per_sequence=True)

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return (k_pos < per_tile(self.length)) & (q_pos == q_pos)  # the latter for the shape of the tile

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        return tiles.coverage(tiles.k_low < per_tile(self.length), tiles.k_high < per_tile(self.length))


@struct
class Dilated(Mask):
    """`(q_pos - k_pos) % step == 0`; see `dilated`."""

    step: int

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return (q_pos - k_pos) % self.step == 0

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        low, high = tiles.q_low - tiles.k_high, tiles.q_high - tiles.k_low
        multiple = high // self.step * self.step >= low  # a multiple of `step` among the differences low ... high
        return tiles.coverage(multiple, multiple & ((low == high) | (self.step == 1)))


@struct
class Chunked(Mask):
    """`q_pos // size == k_pos // size`; see `chunked`."""

    size: int

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return q_pos // self.size == k_pos // self.size

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        q_low, q_high, k_low, k_high = (x // self.size for x in tiles[-4:])
        return tiles.coverage(
            (q_low <= k_high) & (k_low <= q_high),
            (q_low == q_high) & (k_low == k_high) & (q_low == k_low),
        )


_MAX_DISTANCE = 2**28
"""A quarter of `EMPTY_POSITION`: position + offset fits int32, and no window reaches the position of an empty slot."""
_TRACED = "For an offset known only at run time pass query_positions= to attend."


def _check_distance(name: str, x: int, least: int | None, cure: str) -> int:
    """Return an int below `_MAX_DISTANCE` in size and, unless `least` is None, of at least `least`."""
    x = check_int(name, x, least, cure)
    fits = abs(x) < _MAX_DISTANCE
    fail_unless(fits, f"{name}: expected less than 2**28 = {_MAX_DISTANCE:,} positions, got {x}. {cure}")
    return x


def causal(offset: int = 0) -> Causal:
    """Causal mask: a query may attend to the keys up to its own position.

        allowed(t, s)  <=>  k_pos <= q_pos + offset

    Args:
        offset: 0 aligns both sequences at position 0 ("top left": PyTorch `is_causal`, jax.nn). `S - T` aligns their
            ends ("bottom right": Flash-Attention). With a cache leave it 0 and pass `query_positions`.

    Returns:
        A mask.

    Raises:
        TypeError: if `offset` is not a Python int.
        ValueError: if it is 2**28 or more, or -2**28 or less.

    Example:
        >>> from jax_attention import masks
        >>> print(masks.causal().describe(3))
        causal()
        3 queries x 3 keys, # may attend:
        q 0  # . .
        q 1  # # .
        q 2  # # #

    Reference:
        Vaswani et al. (2017), "Attention is all you need", section 3.2.3.
    """
    return Causal(_check_distance("offset", offset, None, _TRACED))


def sliding_window(left: int | None, right: int | None = 0, offset: int = 0) -> SlidingWindow:
    """Sliding window: a query may attend to the last `left` keys, itself included, and the next `right` keys.

        allowed(t, s)  <=>  q_pos + offset - left < k_pos <= q_pos + offset + right

    The window holds `left + right` keys. With the default `right=0` it is causal.

    Args:
        left: keys at or before the query, itself included; None for all of them.
        right: keys after the query; None for all of them.
        offset: as in `causal`.

    Returns:
        A mask.

    Raises:
        TypeError: if an argument is not a Python int (or None).
        ValueError: if `left` < 1 or `right` < 0, or a number is 2**28 or more in size.

    Example:
        >>> from jax_attention import masks
        >>> print(masks.sliding_window(2).describe(4))
        sliding_window(left=2)
        4 queries x 4 keys, # may attend:
        q 0  # . . .
        q 1  # # . .
        q 2  . # # .
        q 3  . . # #

    Reference:
        Beltagy, Peters, Cohan (2020), "Longformer: the long-document transformer", section 3.1.

    Differs from others: Hugging Face `sliding_window=w` is `sliding_window(w)`. Flash-Attention `window_size=(l, r)`
    and jax.nn `local_window_size=(l, r)` do not count the query: `sliding_window(l + 1, r)`. Converters: `from_*`.
    """
    cure = "Window sizes count keys, the query's own included; None means unlimited."
    left = None if left is None else _check_distance("left", left, 1, cure)
    right = None if right is None else _check_distance("right", right, 0, cure)
    return SlidingWindow(left, right, _check_distance("offset", offset, None, _TRACED))


def prefix(length: Int[Array, "*batch"] | int) -> Prefix:
    """Prefix mask: every query may attend to the first `length` keys; usually in `causal() | prefix(n)`.

        allowed(t, s)  <=>  k_pos < length

    Args:
        length: int, or integers with all batch dimensions: `[B]` for `attend`, `n[:, None]` under heads.

    Returns:
        A mask.

    Raises:
        TypeError: if `length` is not integer.

    Example:
        >>> from jax_attention import masks
        >>> print((masks.causal() | masks.prefix(2)).describe(3))
        (causal() | prefix(length=2))
        3 queries x 3 keys, # may attend:
        q 0  # # .
        q 1  # # .
        q 2  # # #

    Reference:
        Raffel et al. (2020), "Exploring the limits of transfer learning with a unified text-to-text Transformer", 3.2.
    """
    return Prefix(check_lengths("length", length))


def dilated(step: int) -> Dilated:
    """Dilated mask: a query may attend to every `step`-th key, counted from itself; combine it with `causal`.

        allowed(t, s)  <=>  (q_pos - k_pos) mod step = 0

    Args:
        step: distance between allowed keys, at least 1.

    Returns:
        A mask.

    Raises:
        TypeError: if `step` is not a Python int.
        ValueError: if it is smaller than 1, or 2**28 or more.

    Example:
        >>> from jax_attention import masks
        >>> print((masks.dilated(2) & masks.causal()).describe(4))
        (dilated(step=2) & causal())
        4 queries x 4 keys, # may attend:
        q 0  # . . .
        q 1  . # . .
        q 2  # . # .
        q 3  . # . #

    Reference:
        Child, Gray, Radford, Sutskever (2019), "Generating long sequences with sparse transformers", section 4.2.
    """
    return Dilated(_check_distance("step", step, 1, "1 allows every key."))


def chunked(size: int) -> Chunked:
    """Chunked mask: a query may attend to the keys of its own chunk of `size` positions.

        allowed(t, s)  <=>  floor(q_pos / size) = floor(k_pos / size)

    Args:
        size: positions per chunk, at least 1.

    Returns:
        A mask.

    Raises:
        TypeError: if `size` is not a Python int.
        ValueError: if it is smaller than 1, or 2**28 or more.

    Example:
        >>> from jax_attention import masks
        >>> print((masks.chunked(2) & masks.causal()).describe(4))
        (chunked(size=2) & causal())
        4 queries x 4 keys, # may attend:
        q 0  # . . .
        q 1  # # . .
        q 2  . . # .
        q 3  . . # #

    Reference:
        Meta (2025), Llama 4 model card and `attention_chunk_size` in Hugging Face `Llama4TextConfig`.
    """
    return Chunked(_check_distance("size", size, 1, "A chunk holds at least one position."))
