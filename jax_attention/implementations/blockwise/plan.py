"""Which tiles there are, how large, and which of them must be computed."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.ground.values import map_arrays
from jax_attention.implementations.problem import Problem
from jax_attention.masks import Mask
from jax_attention.masks.cover import Cover, Tiles, low_and_high

TILES = {"cpu": (2**18, 1)}
"""Backend -> scores of a tile, at most, and rows for each column. On a CPU 512 x 512, unless there are fewer queries or
keys than that: the fastest of 5 shapes at T = 1,024 and 4,096, but for 1,024 x 512, which is 4 % faster under causal
masks and 27 % slower under a window."""
ELSEWHERE = (2**22, 4)
"""Many blocks of queries at a time, to fill an accelerator; not measured."""
FINER = {1: 1.0, 2: 0.43, 4: 0.125}
"""Sides divided by this -> time of such a tile, forward and backward on a CPU, as a share of the whole one's."""
TILES_LOOKED_AT = 2**20
"""To choose among finer tiles; more of them are not tried."""
SCORES_AT_ONCE = 2**24
"""The same over all leading indices that share a tile (64 MiB in float32) …"""
SMALLEST = 2**12
"""… but for tiles of 64 x 64."""


@dataclasses.dataclass(frozen=True)
class Blockwise:
    """The blockwise implementation with tiles of your own size, to be given as `implementation`.

        tiles of at most tile[0] queries x tile[1] keys, as equal as can be

    Args:
        tile: rows and columns of a tile; rules that need whole rows take as many rows, and all columns. Memory grows
            with their product, times all leading axes where these share a tile (on accelerators, on several devices,
            and for plain functions). The result does not depend on them but by rounding.

    Returns:
        A value for the `implementation` of `attend` and its relatives.

    Raises:
        ValueError: if `tile` is not two positive integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import Blockwise, attend
        >>> x = jnp.ones((1000, 2))
        >>> attend(x, x, x, implementation=Blockwise(tile=(128, 500))).shape
        (1000, 2)

    Reference:
        Dao et al. (2022), "FlashAttention", section 3.1.
    """

    tile: tuple[int, int]

    def __post_init__(self) -> None:
        sizes = self.tile if isinstance(self.tile, (tuple, list)) else ()
        if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"tile: expected (rows, columns), two positive integers, got {self.tile!r}.")
        object.__setattr__(self, "tile", tuple(sizes))


class Plan(NamedTuple):
    """Tiles of `height` x `width` over T rows and S columns, the last ones padded."""

    height: int
    width: int
    T: int
    S: int

    @property
    def rows(self) -> int:
        """Of tiles."""
        return -(-self.T // self.height)

    @property
    def columns(self) -> int:
        """Of tiles."""
        return -(-self.S // self.width)

    def padded(self, x: Any, axes: tuple[str, ...]) -> Any:
        """Axes named T and S, counted from the end, filled up to whole tiles by their last entry; size 1 stays."""
        want = {"T": self.rows * self.height - self.T, "S": self.columns * self.width - self.S}
        shape = np.shape(x)
        missing = [0] * (len(shape) - len(axes))
        missing += [
            want.get(axis, 0) if size > 1 else 0 for axis, size in zip(axes, shape[len(missing) :], strict=True)
        ]
        if not any(missing):
            return x
        xp = np if isinstance(x, np.ndarray) else jnp
        return xp.pad(x, [(0, n) for n in missing], mode="edge")

    def padded_value(self, x: Any) -> Any:
        """The same for all arrays inside values."""
        return map_arrays(lambda entry: self.padded(entry.array, entry.axes), x)

    def cut(self, x: Any, axes: tuple[str, ...], i: Any, j: Any) -> Any:
        """The part of a padded array that belongs to tile `i, j`."""
        for axis, name in enumerate(axes, np.ndim(x) - len(axes)):
            if name in ("T", "S") and x.shape[axis] > 1:
                place, size = (i, self.height) if name == "T" else (j, self.width)
                x = jax.lax.dynamic_slice_in_dim(jnp.asarray(x), place * size, size, axis=axis)
        return x

    def cut_value(self, x: Any, i: Any, j: Any) -> Any:
        """The same for all arrays inside values."""
        return map_arrays(lambda entry: self.cut(entry.array, entry.axes, i, j), x)

    def needed(self, problem: Problem) -> int:
        """How many tiles are not known to be empty."""
        q_pos, k_pos = self.padded(problem.query_positions, ("T",)), self.padded(problem.key_positions, ("S",))
        return int(self.cover(self.padded_value(problem.mask), q_pos, k_pos).some.sum())

    def cover(self, mask: Mask | None, q_pos: Any, k_pos: Any) -> Cover:
        """What is known about the tiles; `mask` and positions padded. Tiles with columns too many are never full."""
        q_low, q_high = (x[..., :, None] for x in low_and_high(q_pos, self.height))
        k_low, k_high = (x[..., None, :] for x in low_and_high(k_pos, self.width))
        tiles = Tiles(self.rows, self.columns, self.height, self.width, q_low, q_high, k_low, k_high)
        whole = np.ones((self.rows, self.columns), bool)
        cover = Cover(whole, whole, whole) if mask is None else mask.cover(tiles)
        inside = whole.copy()
        inside[:, -1:] &= self.S % self.width == 0
        return cover._replace(all=cover.all & inside)


def make_plan(problem: Problem, crowd: int = 1) -> Plan:
    """Tiles as equal as can be: 768 rows are 2 x 384, not 512 and 256 filled up.

    One query against a million keys has long tiles; where `crowd` leading indices share a tile, it is smaller. Under a
    mask known when traced so are those that cost least: a narrow window leaves most of a large tile empty.
    """
    rows, columns = problem.score_shape[-2:]
    of = lambda height, width: Plan(_equal(rows, height), _equal(columns, width), rows, columns)  # noqa: E731
    if isinstance(problem.implementation, Blockwise):
        return of(*problem.implementation.tile)
    largest, aspect = TILES.get(jax.default_backend(), ELSEWHERE)
    area = max(min(largest, SCORES_AT_ONCE // crowd) // problem.score.per_pair, SMALLEST)
    width = math.isqrt(area // aspect)
    plan = of(area // min(columns, width), area // min(rows, area // width))
    arrays = jax.tree.leaves((problem.mask, problem.query_positions, problem.key_positions))
    if problem.mask is None or any(isinstance(x, jax.Array) for x in arrays):
        return plan
    finer = {of(-(-plan.height // n), -(-plan.width // n)): cost for n, cost in FINER.items()}
    fit = [own for own in finer if own.height * own.width >= SMALLEST and own.rows * own.columns <= TILES_LOOKED_AT]
    return min(fit, key=lambda own: finer[own] * own.needed(problem), default=plan)


def _equal(size: int, at_most: int) -> int:
    return -(-size // -(-size // at_most))
