"""Which calls can be evaluated in O(T) time, what prevents it in the others, and the keys that their masks allow."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.implementations.call import AttentionCall, ResultKind
from jax_attention.masks import Causal, Lengths, Prefix
from jax_attention.masks.base import and_terms
from jax_attention.normalizers import Linear, Proportional, Softmax, Uniform
from jax_attention.scores import Concat, UserScore


def why_not(call: AttentionCall) -> str | None:
    """The first reason why a call needs every pair of query and key, or None."""
    if call.result is not ResultKind.OUTPUT:
        return "weights and statistics: linear_attention forms none; 'reference' and 'blockwise' do"
    if call.dropout is not None:
        return f"dropout: linear_attention makes no weights that could be dropped, got rate {call.dropout.rate}"
    if call.mods:
        return f"mods: linear_attention looks at no single score that a mod could change, got {call.mods!r}"
    if any(jax.typeof(x).sharding.mesh.explicit_axes for x in (call.query, call.key, call.value)):
        return "mesh: linear_attention needs mesh axes of type Auto, or shard_map, got explicit ones"
    return _rule(call) or _mask(call)


def _rule(call: AttentionCall) -> str | None:
    score, normalize = call.score, call.normalize
    if isinstance(normalize, (Proportional, Linear)):
        fits = score.is_product or isinstance(score, Concat)
        expected = "a score that is a product of rows (features, random_features, dot, scaled_dot, cosine, general, l2)"
    elif isinstance(normalize, Softmax):
        fits, expected = isinstance(score, Concat), "concat"
    elif isinstance(normalize, Uniform):
        fits, expected = not isinstance(score, UserScore), "a built-in score"
    else:
        expected = "proportional, linear or uniform, or softmax of concat"
        return f"normalize: linear_attention needs {expected}, got {normalize!r}"
    return None if fits else f"score: under {normalize!r} linear_attention needs {expected}, got {score!r}"


def _mask(call: AttentionCall) -> str | None:
    for part in and_terms(call.mask):
        if type(part) not in (Causal, Lengths, Prefix):
            return f"mask: linear_attention needs None, causal, lengths, prefix or `&` of them, got {part!r}"
        if isinstance(part, Causal):
            for name in ("query_positions", "key_positions"):
                if not isinstance(getattr(call, name), np.ndarray):  # NumPy where none were given
                    return (
                        f"{name}: linear_attention runs along the keys and needs the default positions 0, 1, 2, … here"
                    )
    return None


class CausalExtent(NamedTuple):
    """Query row t sees key row s where `s <= t + ahead`, `query_ok[t]` and `key_ok[s]`.

    ahead:    an int, at most S; S where no part of the mask is causal
    query_ok: bool `[..., T]`, NumPy where it is known when traced
    key_ok:   bool `[..., S]`, likewise
    """

    ahead: int
    query_ok: Any
    key_ok: Any

    def counts(self) -> jax.Array:
        """How many keys each query sees, `[..., T]`."""
        last = np.minimum(np.arange(self.query_ok.shape[-1]) + self.ahead, self.key_ok.shape[-1] - 1)
        up_to_last = self.key_ok.cumsum(-1)[..., np.maximum(last, 0)].astype(np.int32)
        return jnp.where((last >= 0) & self.query_ok, up_to_last, 0)

    def row_used(self) -> Any:
        """Whether a query sees any key, `[..., T]`."""
        return self.counts() > 0

    def column_used(self) -> Any:
        """Whether any query sees a key, `[..., S]`: any of the queries from row `s - ahead` on."""
        rows = self.query_ok.shape[-1]
        first = np.maximum(np.arange(self.key_ok.shape[-1]) - self.ahead, 0)
        later = self.query_ok[..., ::-1].cumsum(-1)[..., ::-1]
        return (later[..., np.minimum(first, rows - 1)] > 0) & (first < rows) & self.key_ok


def causal_extent(call: AttentionCall) -> CausalExtent:
    """What the mask of an eligible call, which has queries and keys, allows."""
    rows, columns = call.score_shape[-2:]
    rank = (1,) * len(call.batch_shape)
    ahead, query_ok, key_ok = columns, np.ones((*rank, rows), bool), np.ones((*rank, columns), bool)
    for part in and_terms(call.mask):
        if isinstance(part, Causal):
            between = int(call.query_positions.flat[0]) - int(call.key_positions.flat[0])
            ahead = min(ahead, part.offset + between)
        if isinstance(part, Prefix):
            key_ok = key_ok & _below(call.key_positions, part.length)
        if isinstance(part, Lengths):
            query_ok = query_ok & _below(call.query_positions, part.query_lengths)
            key_ok = key_ok & _below(call.key_positions, part.key_lengths)
    return CausalExtent(ahead, query_ok, key_ok)


def _below(positions: Any, length: Any) -> Any:
    """Stays NumPy where both are known."""
    if length is None:
        return True
    return positions < length if isinstance(length, int) else jnp.asarray(positions) < jnp.asarray(length)[..., None]
