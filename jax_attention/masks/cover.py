"""What a mask says about whole tiles: which are empty, which are full, and which must be looked at."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Cover(NamedTuple):
    """Three tables over tiles, `[rows, columns]`.

    some:  False where the mask certainly allows nothing; known when traced (NumPy)
    all:   True where the mask certainly allows every pair; known when traced (NumPy)
    alive: as `some`, but may be known only when run (a JAX array)
    """

    some: np.ndarray
    all: np.ndarray
    alive: Any

    def __and__(self, other: Cover) -> Cover:
        return Cover(self.some & other.some, self.all & other.all, self.alive & other.alive)

    def __or__(self, other: Cover) -> Cover:
        return Cover(self.some | other.some, self.all | other.all, self.alive | other.alive)

    def __invert__(self) -> Cover:
        return Cover(~self.all, ~self.some, ~self.all)


class Tiles(NamedTuple):
    """A grid of tiles: its numbers of rows and columns, sizes, and the ranges of positions.

    Ranges are NumPy where positions are known when traced: `q_low`, `q_high` `[rows, 1]`, `k_low`, `k_high`
    `[1, columns]`. Arrays inside masks with axes T and S are padded to whole tiles.
    """

    rows: int
    columns: int
    height: int
    width: int
    q_low: Any
    q_high: Any
    k_low: Any
    k_high: Any

    def unknown(self) -> Cover:
        """Nothing is known before the pairs are looked at."""
        return self.known(np.ones((), bool), np.zeros((), bool))

    def known(self, some: Any, all: Any) -> Cover:
        """A cover from tables that follow from ranges, whenever those are known."""
        shape = (self.rows, self.columns)
        if isinstance(some, jax.Array) or isinstance(all, jax.Array):
            return Cover(np.ones(shape, bool), np.zeros(shape, bool), jnp.any(_by_leading(some, shape), axis=0))
        some, all = _by_leading(some, shape).any(0), _by_leading(all, shape).all(0)
        return Cover(some, all, some)


PAIRS = 2**20
"""How many pairs `surely_used` looks at, at most."""


def surely_used(mask: Any, q_pos: Any, k_pos: Any) -> bool:
    """Whether it is known when traced that every query may attend to some key and every key be attended to.

    Positions `[..., T]` and `[..., S]`. False wherever that is not known.
    """
    known = all(isinstance(x, np.ndarray) and x.size for x in (q_pos, k_pos))
    size = q_pos.shape[-1] * k_pos.shape[-1]
    if not known or size > PAIRS or any(isinstance(x, jax.Array) for x in jax.tree.leaves(mask)):
        return False
    rows, columns = q_pos[..., :, None], k_pos[..., None, :]
    pairs = mask.cover(Tiles(q_pos.shape[-1], k_pos.shape[-1], 1, 1, rows, rows, columns, columns)).all
    return bool(pairs.any(0).all() and pairs.any(1).all())


def _by_leading(table: Any, shape: tuple[int, int]) -> Any:
    """A table for every leading index, in one axis."""
    xp = jnp if isinstance(table, jax.Array) else np
    return xp.broadcast_to(table, np.broadcast_shapes(np.shape(table), shape)).reshape(-1, *shape)


def low_and_high(x: Any, size: int) -> tuple[Any, Any]:
    """The smallest and the largest of every `size` entries of the last axis, `[..., n]`; also for NumPy. A single entry
    stands for all.
    """
    if x.shape[-1] == 1:
        return x, x
    parts = x.reshape(*x.shape[:-1], -1, size)
    return parts.min(-1), parts.max(-1)
