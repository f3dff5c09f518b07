"""Which queries may attend to nothing at all, and how far back may any look?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax.numpy as jnp

from jax_attention.masks.base import And, Mask, as_mask
from jax_attention.masks.positional import Chunked, SlidingWindow

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Int


def fully_masked_rows(
    mask: Mask | Callable,
    query_length: int,
    key_length: int,
    *,
    query_positions: Int[Array, "*#lead T"] | None = None,
    key_positions: Int[Array, "*#lead S"] | None = None,
) -> Bool[Array, "... T"]:
    """The queries to which a mask leaves no key; their attention output is exactly 0.

        empty(t)  <=>  not any_s allowed(t, s)

    Args:
        mask: a mask value or function.
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
        https://github.com/pytorch/pytorch/issues/41508: what goes wrong when such rows are not known.
    """
    q_pos = jnp.arange(query_length) if query_positions is None else jnp.asarray(query_positions)
    k_pos = jnp.arange(key_length) if key_positions is None else jnp.asarray(key_positions)
    allowed = as_mask(mask)(q_pos[..., :, None], k_pos[..., None, :])
    shape = jnp.broadcast_shapes(allowed.shape, (query_length, key_length))
    return ~jnp.any(jnp.broadcast_to(allowed, shape), axis=-1)


def reach(mask: Mask) -> int | None:
    """How many of the last keys, the query's own included, a mask can look at; None if there is no bound to see."""
    if isinstance(mask, SlidingWindow):
        return mask.left
    if isinstance(mask, Chunked):
        return mask.size
    if isinstance(mask, And):
        bounds = [bound for bound in (reach(mask.left), reach(mask.right)) if bound is not None]
        return min(bounds, default=None)
    return None
