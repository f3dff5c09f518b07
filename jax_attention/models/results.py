"""Arguments and results of a model besides tokens and logits: captures, caches and memories."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.cache import EMPTY, KVCache
from jax_attention.core.checks import fail_unless
from jax_attention.core.short_repr import short_repr
from jax_attention.core.struct import data_field, struct

EMBEDDING = -1
"""The layer number of the hidden state before the first block."""
FIRST_LAYER = {"weights": 0, "hidden": EMBEDDING, "cross": 0}
"""Fields of `Capture`, and the smallest layer number of each."""


@dataclasses.dataclass(frozen=True)
class Capture:
    """Which arrays to return with the logits; capturing does not change them.

        weights[l] = attention weights of layer l,        hidden[l] = the residual stream after layer l
        cross[l] = weights of its cross-attention

    Args:
        weights: layer numbers `0 … depth - 1`, or "all". Each costs a dense `[..., N, T, S]`.
        hidden: layer numbers, -1 for the embeddings before the first layer, or "all"; each is `[..., T, D]`.
        cross: layer numbers, or "all", of a model with a memory; each is `[..., N, T, S]`.

    Returns:
        A static argument for `model(tokens, capture=)`.

    Raises:
        TypeError: if a field is neither "all" nor a tuple of Python ints.
        ValueError: by the call, if a layer does not exist.

    Example:
        >>> from jax_attention import models
        >>> models.Capture(weights="all", hidden=(-1, 3)).layers(4)
        ((0, 1, 2, 3), (-1, 3), ())

    Reference:
        https://github.com/google/flax/issues/4744: returning attention weights.
    """

    weights: tuple[int, ...] | Literal["all"] = ()
    hidden: tuple[int, ...] | Literal["all"] = ()
    cross: tuple[int, ...] | Literal["all"] = ()

    def __post_init__(self) -> None:
        for name in FIRST_LAYER:
            layers = getattr(self, name)
            fail_unless(
                layers == "all" or (isinstance(layers, tuple) and all(type(layer) is int for layer in layers)),
                f"capture.{name}: expected a tuple of layer numbers or 'all', got {layers!r}. One layer is (layer,).",
                TypeError,
            )

    def layers(self, depth: int) -> tuple[tuple[int, ...], ...]:
        """Layer numbers of weights, hidden and cross, checked against the depth of the model."""
        numbers = []
        for name, first in FIRST_LAYER.items():
            layers = getattr(self, name)
            layers = tuple(range(first, depth)) if layers == "all" else layers
            wrong = [layer for layer in layers if not first <= layer < depth]
            fail_unless(not wrong, f"capture.{name}: expected layers {first} to {depth - 1} or 'all', got {wrong}.")
            numbers.append(layers)
        return tuple(numbers)


@short_repr
class CaptureResult(NamedTuple):
    """Attention weights `[..., N, T, S]`, hidden states `[..., T, D]` and weights over the memory, by layer number."""

    weights: dict[int, jax.Array]
    hidden: dict[int, jax.Array]
    cross: dict[int, jax.Array]


@struct
class LMCache:
    """One `KVCache` for each layer, in the layout of the model's blocks: stacked for scanned layers."""

    scanned: tuple[KVCache, ...] = data_field()
    rest: tuple[KVCache, ...] = data_field()

    @property
    def length(self) -> jax.Array:
        """Number of rows that were appended, padding included; the same in all layers."""
        return self.scanned[0].length[0] if self.scanned else self.rest[0].length

    @property
    def positions(self) -> jax.Array:
        """Positions of the rows of the first layer, `[*batch, C]`; `EMPTY` for padding and free slots."""
        return self.scanned[0].positions[0] if self.scanned else self.rest[0].positions

    @property
    def capacity(self) -> int | None:
        """Number of rows that fit; None if every layer keeps a ring, which overwrites its oldest rows."""
        return min((layer.capacity for layer in (*self.scanned, *self.rest) if not layer.ring), default=None)

    def next_positions(self, count: int) -> jax.Array:
        """Positions `[*batch, count]` after the last token of each row, whatever padding it holds."""
        last = jnp.max(jnp.where(self.positions == EMPTY, -1, self.positions), axis=-1, keepdims=True)
        steps = jnp.arange(1, count + 1, dtype=last.dtype)
        return last + steps.reshape((1,) * (last.ndim - 1) + (count,))


@struct
class Memory:
    """Keys and values of a source for the cross-attention of each layer, from `model.project_memory(states)`.

    The layout is that of `LMCache`.
    """

    scanned: tuple[KVCache, ...] = data_field()
    rest: tuple[KVCache, ...] = data_field()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch dimensions of the source."""
        return self.scanned[0].key.shape[1:-3] if self.scanned else self.rest[0].key.shape[:-3]


@short_repr
class LMOutput(NamedTuple):
    """Logits `[..., T, V]` in at least float32, the new cache or None, the captured arrays or None."""

    logits: jax.Array
    cache: LMCache | None
    captured: CaptureResult | None


@short_repr
class StackOutput(NamedTuple):
    """Vectors `[..., T, D]`, the new cache or None, the captured arrays."""

    hidden: jax.Array
    cache: LMCache | None
    captured: CaptureResult
