"""The contract of a mask, and the algebra `& | ~` of masks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from jax_attention.core.part_checks import check_bool, check_kind, check_parameters
from jax_attention.core.short_repr import FactoryRepr
from jax_attention.core.struct import UserFunction, part_field, struct
from jax_attention.masks.block_coverage import BlockCoverage, TileRanges
from jax_attention.masks.picture import draw_mask, evaluate_first


class Mask(FactoryRepr):
    """`mask(q_pos[..., t, 1], k_pos[..., 1, s]) -> bool[..., t, s]`; True means "may attend", everywhere."""

    part = "mask"

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        """Return the allowed pairs, bool, broadcastable to `[..., t, s]`."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(q_pos, k_pos)")

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        """Return which tiles are empty and which are full, as far as that is known without computing pairs.

        Saying less is allowed: blockwise evaluation then computes and masks more tiles. A false claim gives wrong
        results, so a subclass of a mask that has a coverage must override it together with `__call__`.
        """
        return tiles.unknown()

    def __and__(self, other: Mask | Callable) -> And:
        return And(self, as_mask(other))

    def __rand__(self, other: Callable) -> And:
        return And(as_mask(other), self)

    def __or__(self, other: Mask | Callable) -> Or:
        return Or(self, as_mask(other))

    def __ror__(self, other: Callable) -> Or:
        return Or(as_mask(other), self)

    def __invert__(self) -> Not:
        return Not(self)

    def describe(self, query_length: int, key_length: int | None = None) -> str:
        """The mask as text: its expression, then one line per query, `#` where it may attend, `.` where not.

        Of arrays with batch dimensions the first batch element is shown.
        """
        rows, columns = query_length, query_length if key_length is None else key_length
        allowed = evaluate_first(self, np.arange(rows), np.arange(columns))
        width = len(str(max(rows - 1, 0)))
        lines = [f"q {t:>{width}}  " + " ".join(".#"[int(x)] for x in row) for t, row in enumerate(allowed)]
        return "\n".join([repr(self), f"{rows} queries x {columns} keys, # may attend:", *lines])

    def _repr_html_(self) -> str | None:
        """The picture in a notebook; None, which shows the text alone, if the mask cannot be evaluated there."""
        return draw_mask(self)


@struct
class UserMask(UserFunction, Mask):
    """A user's function with the signature of a mask."""

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        allowed = self.function(self.merge_heads(q_pos), self.merge_heads(k_pos))
        check_bool(f"mask {self!r}", allowed)
        return self.split_heads(allowed)


@struct
class And(Mask):
    """Pairs that both masks allow."""

    left: Mask = part_field()
    right: Mask = part_field()

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return self.left(q_pos, k_pos) & self.right(q_pos, k_pos)

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        return self.left.block_coverage(tiles) & self.right.block_coverage(tiles)

    def __repr__(self) -> str:
        return f"({self.left!r} & {self.right!r})"


@struct
class Or(Mask):
    """Pairs that at least one of two masks allows."""

    left: Mask = part_field()
    right: Mask = part_field()

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return self.left(q_pos, k_pos) | self.right(q_pos, k_pos)

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        return self.left.block_coverage(tiles) | self.right.block_coverage(tiles)

    def __repr__(self) -> str:
        return f"({self.left!r} | {self.right!r})"


@struct
class Not(Mask):
    """Pairs that the inner mask forbids."""

    mask: Mask = part_field()

    def __call__(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        return ~self.mask(q_pos, k_pos)

    def block_coverage(self, tiles: TileRanges) -> BlockCoverage:
        return ~self.mask.block_coverage(tiles)

    def __repr__(self) -> str:
        return f"~{self.mask!r}"


def and_terms(mask: Mask | None) -> list[Mask]:
    """The operands of nested `&`, in order; an empty list for no mask."""
    if isinstance(mask, And):
        return and_terms(mask.left) + and_terms(mask.right)
    return [] if mask is None else [mask]


def as_mask(x: Mask | Callable) -> Mask:
    """A mask, or a plain function made into one: what `attend` does with its `mask` argument.

        as_mask(mask) = mask,        as_mask(f)(q_pos, k_pos) = f(q_pos, k_pos)

    Args:
        x: a mask, or `f(q_pos[..., t, 1], k_pos[..., 1, s]) -> bool[..., t, s]`, True = may attend.

    Returns:
        A mask, which has the algebra `& | ~`.

    Raises:
        TypeError: if `x` is not callable (an array, say); when the mask is called, if `f` does not return booleans.

    Example:
        >>> from jax_attention import masks
        >>> masks.as_mask(lambda q, k: q != k) & masks.causal()
        (<lambda> & causal())

    Reference:
        `mask_mod` of https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
    """
    if isinstance(x, Mask):
        return x
    if not callable(x):
        raise TypeError(
            "mask: expected a part from jax_attention.masks or a function (q_pos, k_pos) -> bool, got "
            f"{type(x).__name__}. Wrap a boolean array (True = may attend): masks.dense(array)."
        )
    check_kind("mask", x)
    check_parameters("mask", x, ("q_pos", "k_pos"))
    return UserMask(x)
