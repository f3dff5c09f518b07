"""What a call of the model takes and gives back besides tokens and logits: captures and caches."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax

from jax_attention.cache import KVCache
from jax_attention.ground.checks import fail_unless

EMBEDDING = -1
"""The number of the hidden state before the first block."""


@dataclasses.dataclass(frozen=True)
class Capture:
    """What to return beside the logits; asking does not change them.

        weights[l] = attention weights of layer l,        hidden[l] = the residual stream after layer l

    Args:
        weights: layer numbers `0 … depth - 1`, or "all". Each costs a dense `[..., N, T, S]`.
        hidden: layer numbers, -1 for the embeddings before the first layer, or "all".

    Returns:
        A static value for `model(tokens, capture=)`.

    Raises:
        ValueError: by the call, if a layer does not exist.

    Example:
        >>> from jax_attention import models
        >>> models.Capture(weights="all", hidden=(-1, 3)).layers(4)
        ((0, 1, 2, 3), (-1, 3))

    Reference:
        https://github.com/google/flax/issues/4744: asking for weights.
    """

    weights: tuple[int, ...] | Literal["all"] = ()
    hidden: tuple[int, ...] | Literal["all"] = ()

    def layers(self, depth: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The numbers asked for, checked against the depth of the model."""
        found = []
        for name, first in (("weights", 0), ("hidden", EMBEDDING)):
            asked = getattr(self, name)
            layers = tuple(range(first, depth)) if asked == "all" else tuple(asked)
            wrong = [layer for layer in layers if not first <= layer < depth]
            fail_unless(not wrong, f"capture.{name}: expected layers {first} to {depth - 1} or 'all', got {wrong}.")
            found.append(layers)
        return found[0], found[1]


class Captured(NamedTuple):
    """Maps `[..., N, T, S]` and hidden states `[..., T, D]` by layer number."""

    weights: dict[int, jax.Array]
    hidden: dict[int, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LMCache:
    """One `KVCache` for each layer, in the layout of the model's blocks: stacked for scanned ones, single for the rest."""

    scanned: tuple[KVCache, ...]
    rest: tuple[KVCache, ...]

    @property
    def first(self) -> KVCache:
        """The cache of the first layer; all layers hold the same number of rows."""
        return jax.tree.map(lambda x: x[0], self.scanned[0]) if self.scanned else self.rest[0]

    @property
    def length(self) -> jax.Array:
        """How many rows were appended."""
        return self.first.length


class LMOutput(NamedTuple):
    """Logits `[..., T, V]` in at least float32, the new cache or None, what was captured or None."""

    logits: jax.Array
    cache: LMCache | None
    captured: Captured | None
