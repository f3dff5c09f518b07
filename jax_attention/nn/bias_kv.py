"""One learned key and value beside those of the sequence, by merging two attentions: masks and mods never see it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.attention.attend import attend_with_stats_heads, attention_weights_heads
from jax_attention.attention.merge import merge_partials
from jax_attention.core.numerics import compute_dtype
from jax_attention.normalizers import Softmax, softmax

EXTRA_POSITION = -1
"""The extra key stands before the sequence; only its dropout bits depend on that."""


def attend_with_bias_kv(
    query: jax.Array, key: jax.Array, value: jax.Array, bias_kv: Any, extra_value: Any, options: dict[str, Any]
) -> jax.Array:
    """`attend_heads` over `[key ; bias_kv]`, where every query may attend to the extra key, unmodified."""
    sinks, parts = _parts(query, key, value, bias_kv, extra_value, options)
    partials = [attend_with_stats_heads(query, k, v, **rule)[:2] for k, v, rule in parts]
    dtype = compute_dtype(query)
    if sinks is not None:
        lse = jnp.broadcast_to(jnp.asarray(sinks, dtype), partials[0][1].shape)
        partials.append((jnp.zeros((), dtype) * partials[0][0], lse))
    return merge_partials(*partials).output


def weights_with_bias_kv(
    query: jax.Array, key: jax.Array, value: jax.Array, bias_kv: Any, extra_value: Any, options: dict[str, Any]
) -> jax.Array:
    """The weights of the same attention, `[..., N, T, S + 1]`, the extra key last."""
    sinks, parts = _parts(query, key, value, bias_kv, extra_value, options)
    sums = [jnp.swapaxes(attend_with_stats_heads(query, k, v, **rule).logsumexp, -1, -2) for k, v, rule in parts]
    total = jnp.logaddexp(*sums)
    if sinks is not None:
        total = jnp.logaddexp(total, jnp.asarray(sinks)[..., None])
    maps = [
        attention_weights_heads(query, k, v, **rule) * jnp.exp(lse - total)[..., None].astype(query.dtype)
        for (k, v, rule), lse in zip(parts, sums, strict=True)
    ]
    return jnp.concatenate(maps, axis=-1)


def _parts(
    query: jax.Array, key: jax.Array, value: jax.Array, bias_kv: Any, extra_value: Any, options: dict[str, Any]
) -> tuple[Any, list[tuple[jax.Array, jax.Array, dict[str, Any]]]]:
    """Sinks or None, and the two attentions to merge: over the sequence, and over the extra key."""
    normalize = options["normalize"] or softmax()
    if not isinstance(normalize, Softmax):
        raise ValueError(f"bias_kv: expected the softmax, whose parts can be merged, got normalize={normalize!r}.")
    lead = key.shape[:-3]
    bias_kv, extra_value = (jnp.broadcast_to(x, (*lead, *x.shape)).astype(query.dtype) for x in (bias_kv, extra_value))
    own = {**options, "normalize": softmax()}
    extra = {**own, "mask": None, "mods": (), "key_positions": jnp.array([EXTRA_POSITION])}
    sinks = 0.0 if normalize.plus_one else normalize.sinks
    return sinks, [(key, value, own), (bias_kv, extra_value, extra)]
