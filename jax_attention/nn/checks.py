"""Checks of multi-head attention: sizes that divide, and caches that still hold every key that the mask may allow."""

from __future__ import annotations

from typing import Any

from jax_attention import masks
from jax_attention.cache import KVCache, filled
from jax_attention.core.sizes import is_at_most
from jax_attention.masks.properties import max_lookback
from jax_attention.positions import Rotary


def head_sizes(num_heads: int, size: int, kv_heads: int | None, head_size: int | None) -> tuple[int, int]:
    """The number of key heads K and the head size H, by default N and D / N."""
    kv_heads = num_heads if kv_heads is None else kv_heads
    if kv_heads < 1 or num_heads % kv_heads:
        raise ValueError(f"kv_heads: expected a divisor of num_heads = {num_heads}, got {kv_heads}.")
    if head_size is None:
        if size % num_heads:
            raise ValueError(f"num_heads: expected a divisor of size = {size}, got {num_heads}. Or give head_size.")
        head_size = size // num_heads
    return kv_heads, head_size


def check_cache(cache: KVCache, count: int, mask: Any) -> None:
    """Refuse a cache that has lost a key which `count` new rows may attend to."""
    window = None if mask is None else max_lookback(masks.as_mask(mask))
    if cache.ring and (window is None or not is_at_most(window + count - 1, cache.capacity)):
        raise ValueError(
            f"cache: expected a ring with at least window + {count} - 1 slots and a mask with a bounded window, "
            f"got {cache.capacity} slots and mask {mask!r}. Append fewer rows at a time or create a larger cache."
        )


def check_rope(rope: Any) -> None:
    """Refuse what is no rotary embedding."""
    if rope is not None and not isinstance(rope, Rotary):
        raise TypeError(f"rope: expected positions.rotary(...) or None, got {rope!r}.")


def check_packed(packed: bool, size: int, key_size: int, value_size: int) -> None:
    """Refuse one kernel for inputs of several sizes."""
    if packed and (key_size, value_size) != (size, size):
        raise ValueError(
            f"packed: expected inputs of one size to share a kernel, got size = {size}, key_size = {key_size}, "
            f"value_size = {value_size}. Use packed=False."
        )


def hide_empty(mask: Any) -> Any:
    """The mask, with empty slots of a cache and padding rows of a memory hidden."""
    return filled() if mask is None else masks.as_mask(mask) & filled()
