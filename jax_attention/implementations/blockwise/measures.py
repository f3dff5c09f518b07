"""What is summed over keys, tile by tile: values by their weights, or statistics of the rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jax_attention.dropout import Dropout
from jax_attention.ground.numerics import zero_rows
from jax_attention.ground.product import product
from jax_attention.ground.values import child, value
from jax_attention.normalizers import Normalizer


class Tile(NamedTuple):
    """One tile of scores `[..., t, s]` and what belongs to it; positions are ready to broadcast."""

    scores: jax.Array
    where: jax.Array
    value: jax.Array
    q_pos: jax.Array
    k_pos: jax.Array
    dropout: Dropout | None
    index: jax.Array | None


class Sums(NamedTuple):
    """Over the keys seen: values times numerators, `[..., t, E]`, and the normalizer's total, `[..., t, 1]`."""

    values: jax.Array
    total: jax.Array


@value
class Weighted:
    """What attention sums over keys."""

    normalize: Normalizer = child()
    guarded: bool = False
    """Whether mods or a score may forbid a key, whose value must then not be touched."""

    def anchor(self, tile: Tile) -> jax.Array | None:
        """The normalizer's."""
        return self.normalize.anchor(tile.scores, tile.where)

    def sums(self, tile: Tile, anchor: jax.Array | None) -> Sums:
        """A tile's contribution."""
        numerator = self.normalize.numerator(tile.scores, tile.where, anchor)
        value = zero_rows(tile.value, tile.where.any(-2)) if self.guarded else tile.value
        kept = numerator
        if tile.dropout is not None:
            kept = tile.dropout(numerator, tile.q_pos, tile.k_pos, tile.index)
        return Sums(product(kept, value), self.normalize.total(numerator, tile.where))

    def joined(self, old: Sums, new: Sums, old_anchor: Any, anchor: Any) -> Sums:
        """Both, relative to the new anchor."""
        factor = self.normalize.rescale(old_anchor, anchor)
        return Sums(*(factor * a + b for a, b in zip(old, new, strict=True)))

    def finish(self, sums: Sums, anchor: jax.Array | None) -> jax.Array:
        """The output."""
        return sums.values / self.normalize.denominator(sums.total, anchor)
