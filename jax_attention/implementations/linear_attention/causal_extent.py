"""The keys that each query may attend to, for masks that are a causal bound and excluded rows and columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.sizes import index_range, is_static
from jax_attention.implementations.call import AttentionCall
from jax_attention.masks import Causal, Lengths, Prefix
from jax_attention.masks.base import and_terms


class CausalExtent(NamedTuple):
    """Query row t sees key row s where `s <= t + ahead`, `query_ok[t]` and `key_ok[s]`.

    ahead:    a size, at most S; S where no part of the mask is causal
    query_ok: bool `[..., T]`, NumPy where it is known when traced
    key_ok:   bool `[..., S]`, likewise
    """

    ahead: Any
    query_ok: Any
    key_ok: Any

    def counts(self) -> jax.Array:
        """How many keys each query sees, `[..., T]`."""
        rows, columns = self.query_ok.shape[-1], self.key_ok.shape[-1]
        xp = np if is_static(rows, columns) else jnp
        last = xp.minimum(index_range(rows) + self.ahead, columns - 1)
        up_to_last = self.key_ok.cumsum(-1)[..., xp.maximum(last, 0)].astype(np.int32)
        return jnp.where((last >= 0) & self.query_ok, up_to_last, 0)

    def row_used(self) -> Any:
        """Whether a query sees any key, `[..., T]`."""
        return self.counts() > 0

    def column_used(self) -> Any:
        """Whether any query sees a key, `[..., S]`: any of the queries from row `s - ahead` on."""
        rows, columns = self.query_ok.shape[-1], self.key_ok.shape[-1]
        xp = np if is_static(rows, columns) else jnp
        first = xp.maximum(index_range(columns) - self.ahead, 0)
        later = self.query_ok[..., ::-1].cumsum(-1)[..., ::-1]
        return (later[..., xp.minimum(first, rows - 1)] > 0) & (first < rows) & self.key_ok


def causal_extent(call: AttentionCall) -> CausalExtent:
    """What the mask of an eligible call, which has queries and keys, allows."""
    rows, columns = call.score_shape[-2:]
    rank = (1,) * len(call.batch_shape)
    ahead, query_ok, key_ok = columns, _all_true(*rank, rows), _all_true(*rank, columns)
    for part in and_terms(call.mask):
        if isinstance(part, Causal):
            ahead = jax.core.min_dim(ahead, part.offset)
        if isinstance(part, Prefix):
            key_ok = key_ok & _below(call.key_positions, part.length)
        if isinstance(part, Lengths):
            query_ok = query_ok & _below(call.query_positions, part.query_lengths)
            key_ok = key_ok & _below(call.key_positions, part.key_lengths)
    return CausalExtent(ahead, query_ok, key_ok)


def _all_true(*shape: Any) -> Any:
    """NumPy where the shape is known."""
    return (np if is_static(*shape) else jnp).ones(shape, bool)


def _below(positions: Any, length: Any) -> Any:
    """Stays NumPy where both are known."""
    if length is None:
        return True
    return positions < length if isinstance(length, int) else jnp.asarray(positions) < jnp.asarray(length)[..., None]
