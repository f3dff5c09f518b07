"""Properties of a mask: queries without any key, and the largest look-back distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jax_attention.core.numerics import as_int32
from jax_attention.core.struct import align, named_arrays
from jax_attention.masks.base import And, Mask, as_mask
from jax_attention.masks.positional import Chunked, SlidingWindow

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


def fully_masked_rows(
    mask: Mask | Callable,
    query_length: int,
    key_length: int,
    *,
    query_positions: Int[Array, "*#batch T"] | None = None,
    key_positions: Int[Array, "*#batch S"] | None = None,
) -> Bool[Array, "... T"]:
    """The queries for which a mask allows no key; their attention output is exactly 0.

        empty(t)  <=>  not any_s allowed(t, s)

    Args:
        mask: a mask or a function.
        query_length: T.
        key_length: S.
        query_positions: `[..., T]`; 0 … T-1 if None.
        key_positions: `[..., S]`; 0 … S-1 if None.

    Returns:
        bool `[..., T]`.

    Raises:
        TypeError: if `mask` is not callable.

    Example:
        >>> from jax_attention import masks
        >>> masks.fully_masked_rows(masks.causal(offset=-1), 3, 3)
        Array([ True, False, False], dtype=bool)

    Reference:
        https://github.com/pytorch/pytorch/issues/41508: NaN from such rows.
    """
    q_pos = as_int32(jnp.arange(query_length) if query_positions is None else jnp.asarray(query_positions))
    k_pos = as_int32(jnp.arange(key_length) if key_positions is None else jnp.asarray(key_positions))
    # Equal ranks, as in an attention call: `jax_numpy_rank_promotion="raise"` refuses others.
    q_pos, k_pos, arrays = q_pos[..., :, None], k_pos[..., None, :], named_arrays(as_mask(mask))
    rank = max([q_pos.ndim - 2, k_pos.ndim - 2, *(np.ndim(entry.array) - len(entry.axes) for entry in arrays)])
    q_pos, k_pos = (x.reshape((1,) * (rank + 2 - x.ndim) + x.shape) for x in (q_pos, k_pos))
    allowed = align(as_mask(mask), rank, jnp.float32)(q_pos, k_pos)
    shape = jnp.broadcast_shapes(allowed.shape, (query_length, key_length))
    return ~jnp.any(jnp.broadcast_to(allowed, shape), axis=-1)


def max_lookback(mask: Mask) -> int | None:
    """Largest number of last keys, the query's own included, that a mask can allow; None if no bound is known."""
    if isinstance(mask, SlidingWindow):
        return mask.left
    if isinstance(mask, Chunked):
        return mask.size
    if isinstance(mask, And):
        bounds = [bound for bound in (max_lookback(mask.left), max_lookback(mask.right)) if bound is not None]
        return min(bounds, default=None)
    return None
