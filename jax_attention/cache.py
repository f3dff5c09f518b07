"""A functional key/value cache: a pytree in, a pytree out, in the layout of `attend_heads`.

Prefill of n tokens and decoding of one are the same two calls: `append`, then `attend_heads` with `query_positions` and
`key_positions=cache.positions`. Empty slots have the position `EMPTY`, far in the future, so causal masks and sliding
windows exclude them; for other masks add `& filled()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.core
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from jax_attention.core.checks import check_int, check_operand, check_positions, describe_array, fail_unless
from jax_attention.core.explicit_axes import has_explicit_axes, reshard, rows_sharding
from jax_attention.core.numerics import EMPTY_POSITION
from jax_attention.core.sizes import exceeds, is_at_most
from jax_attention.core.struct import data_field, struct
from jax_attention.masks import Mask, prefix

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

EMPTY = EMPTY_POSITION
"""The position of empty slots and of padding rows, 2^30: after every query, and no overflow in int32."""


@struct
class KVCache:
    """Keys `[..., C, K, H]`, values `[..., C, K, E]`, positions `[..., C]`, and the number of rows appended so far."""

    key: jax.Array = data_field()
    value: jax.Array = data_field()
    positions: jax.Array = data_field()
    length: jax.Array = data_field()
    ring: bool = False

    @property
    def capacity(self) -> int:
        """Number of slots C."""
        return self.key.shape[-3]


def create(
    capacity: int,
    kv_heads: int,
    head_size: int,
    value_size: int | None = None,
    *,
    batch: tuple[int, ...] = (),
    dtype=jnp.float32,
    ring: bool = False,
) -> KVCache:
    """An empty cache.

        key = 0 [*batch, C, K, H],        value = 0 [*batch, C, K, E],        positions = EMPTY [*batch, C]

    Args:
        capacity: C slots. With a sliding window of w keys and a ring, `w + (largest append) - 1` slots suffice.
        kv_heads: K.
        head_size: H.
        value_size: E; H if None.
        batch: batch shape.
        dtype: of keys and values.
        ring: overwrite the oldest slots when full, instead of refusing.

    Returns:
        A `KVCache`.

    Raises:
        ValueError: if a size is smaller than 1.
        TypeError: if a size is not a Python int.

    Example:
        >>> from jax_attention import cache
        >>> cache.create(8, kv_heads=2, head_size=4, batch=(3,)).key.shape
        (3, 8, 2, 4)

    Reference:
        Shazeer (2019), "Fast transformer decoding: one write-head is all you need", section 2.4.
    """
    sizes = {"capacity": capacity, "kv_heads": kv_heads, "head_size": head_size}
    for name, size in sizes.items():
        check_int(name, size, 1, "Cache sizes are static.")
    fail_unless(
        isinstance(batch, tuple), f"batch: expected a tuple of sizes, got {batch!r}. One axis is (size,).", TypeError
    )
    value_size = head_size if value_size is None else check_int("value_size", value_size, 1, "Cache sizes are static.")
    return KVCache(
        key=jnp.zeros((*batch, capacity, kv_heads, head_size), dtype),
        value=jnp.zeros((*batch, capacity, kv_heads, value_size), dtype),
        positions=jnp.full((*batch, capacity), EMPTY, jnp.int32),
        length=jnp.zeros((), jnp.int32),
        ring=bool(ring),
    )


def next_positions(cache: KVCache, count: int) -> Int[Array, "T"]:
    """Default positions of the next `count` rows.

        length, length + 1, …, length + count - 1

    Args:
        cache: a cache.
        count: T.

    Returns:
        int32 `[T]`.

    Raises:
        TypeError: if `count` is not a Python int.

    Example:
        >>> from jax_attention import cache
        >>> cache.next_positions(cache.create(8, 1, 2), 3)
        Array([0, 1, 2], dtype=int32)
    """
    if not is_symbolic_dim(count):
        check_int("count", count, 0, "It is the number of new rows.")
    return cache.length + jnp.arange(count, dtype=jnp.int32)


def append(
    cache: KVCache,
    key: Float[Array, "*batch T K H"],
    value: Float[Array, "*batch T K E"],
    positions: Int[Array, "*#batch T"] | None = None,
) -> KVCache:
    """Append T rows.

        slot of row i = length + i          (ring: modulo the capacity)

    Args:
        cache: a cache; it is not changed.
        key: `[*batch, T, K, H]`.
        value: `[*batch, T, K, E]`.
        positions: int `[..., T]`, `next_positions` if None. Give padding rows the position `EMPTY`: no other row can
            attend to them under a causal mask, so ragged prompts, padded left or right, need no further mask. (Add
            `& filled()` if the padding may hold NaN: padding queries attend to padding keys, and would give NaN.)

    Returns:
        The new cache.

    Raises:
        ValueError: if a shape is wrong, if the rows do not fit into a cache that is not a ring, or if there are more
            than the slots of a ring. Under `jit` the length is not known and Python cannot raise: rows that do not fit
            are then written as NaN over the last slots, so that the outputs of attention become NaN. So are those of a
            symbolic number of rows; a ring needs a bound of it: `symbolic_shape("t", constraints=["t <= 16"])`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import cache
        >>> c = cache.append(cache.create(4, 1, 2), jnp.ones((3, 1, 2)), jnp.ones((3, 1, 2)))
        >>> c.length, c.positions
        (Array(3, dtype=int32), Array([         0,          1,          2, 1073741824], dtype=int32))

    Reference:
        https://github.com/google/flax/issues/1317: a cache that took one token at a time.
    """
    key, value = check_operand("key", key, 3, "[..., T, K, H]"), check_operand("value", value, 3, "[..., T, K, E]")
    count = key.shape[-3]
    for name, new, old in (("key", key, cache.key), ("value", value, cache.value)):
        expected = (*old.shape[:-3], count, *old.shape[-2:])
        fail_unless(
            new.shape == expected,
            f"{name}: expected shape {expected} to fit the cache's {describe_array(old)}, got {describe_array(new)}.",
        )
    _check_room(cache, count)
    batch = cache.positions.shape[:-1]
    if positions is None:
        positions = next_positions(cache, count)
    positions = check_positions("positions", positions, count, batch)
    positions = jnp.broadcast_to(positions, (*batch, count))
    return KVCache(
        key=_write(cache, cache.key, _nan_if_full(cache, key), -3),
        value=_write(cache, cache.value, _nan_if_full(cache, value), -3),
        positions=_write(cache, cache.positions, positions, -1),
        length=cache.length + count,
        ring=cache.ring,
    )


def filled() -> Mask:
    """A mask that excludes empty slots; needed only without a causal mask or a window that excludes them.

        allowed(t, s)  <=>  k_pos < EMPTY

    It compares the `key_positions` passed to `attend_heads`.

    Returns:
        A mask.

    Example:
        >>> from jax_attention import cache
        >>> cache.filled()
        prefix(length=1073741824)
    """
    return prefix(EMPTY)


def _is_concrete(length: jax.Array) -> bool:
    return not isinstance(length, jax.core.Tracer)


def _check_room(cache: KVCache, count: int) -> None:
    if exceeds(count, cache.capacity) or (cache.ring and not is_at_most(count, cache.capacity)):
        raise ValueError(
            f"key: expected at most {cache.capacity} rows, the capacity of the cache, got {count}. "
            "Create a larger cache" + (", or append in parts and attend after each." if cache.ring else ".")
        )
    if not cache.ring and _is_concrete(cache.length) and exceeds(int(cache.length) + count, cache.capacity):
        raise ValueError(
            f"key: expected at most {cache.capacity - int(cache.length)} more rows, as the cache holds "
            f"{int(cache.length)} of {cache.capacity}, got {count}. Create a larger cache, or one with ring=True for "
            "sliding windows."
        )


def _write(cache: KVCache, old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
    """The slots `old` with the rows `new` written after the last row."""
    if has_explicit_axes(new):  # a new cache does not know how keys will be sharded
        old = reshard(old, rows_sharding(new, axis))
    elif has_explicit_axes(old):  # positions made from constants lie on no mesh
        new = reshard(new, rows_sharding(old, axis))
    count, axis, new = new.shape[axis], old.ndim + axis, new.astype(old.dtype)
    if not is_at_most(count, cache.capacity):
        return _write_any_number(cache, old, new, axis)
    if not cache.ring:
        return jax.lax.dynamic_update_slice_in_dim(old, new, cache.length, axis)
    slots = (cache.length + jnp.arange(count, dtype=jnp.int32)) % cache.capacity
    index = (slice(None),) * axis + (slots,)
    return old.at[index].set(new, unique_indices=True)


def _write_any_number(cache: KVCache, old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
    """`_write` of a symbolic number of rows. If they do not fit, the last ones are written over the first slots.

    `_nan_if_full` has made them NaN then, and the last query, which decoding continues from, sees its own row.
    """
    last = new.shape[axis] - 1
    first = (jnp.arange(cache.capacity, dtype=jnp.int32) - cache.length) % cache.capacity
    row = jnp.minimum(first, last) + (last - jnp.minimum(first, last)) // cache.capacity * cache.capacity
    is_new = (first <= last).reshape((-1,) + (1,) * (old.ndim - 1 - axis))
    return jnp.where(is_new, jnp.take(new, row, axis=axis, mode="clip"), old)


def _nan_if_full(cache: KVCache, rows: jax.Array) -> jax.Array:
    """Rows for `_write`, as NaN if they do not fit: under jit `dynamic_update_slice` would overwrite the last slots."""
    count = rows.shape[-3]
    if cache.ring or (_is_concrete(cache.length) and is_at_most(int(cache.length) + count, cache.capacity)):
        return rows
    full = cache.length + count > cache.capacity
    return jnp.where(full, jnp.full((), jnp.nan, rows.dtype), rows)
