"""One learned key and value next to those of the sequence (PyTorch's `bias_k`, `bias_v`).

Attention over the sequence and attention over the learned key are computed apart and merged by their logsumexps, so
masks and mods see positions of the sequence only.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.attention.attend import attend_with_stats_heads, attention_weights_heads
from jax_attention.attention.merge import merge_partials
from jax_attention.core.explicit_axes import reshard, rows_sharding
from jax_attention.core.numerics import compute_dtype
from jax_attention.normalizers import Softmax, softmax

BIAS_POSITION = -1
"""Position of the learned key, before the sequence; only its dropout bits depend on it."""


def attend_with_bias_kv(
    query: jax.Array, key: jax.Array, value: jax.Array, bias_k: Any, bias_v: Any, options: dict[str, Any]
) -> jax.Array:
    """`attend_heads` over `[key ; bias_k]`; every query may attend to the learned key, whose score no mod changes."""
    sinks, calls = _calls(query, key, value, bias_k, bias_v, options)
    partials = [attend_with_stats_heads(query, k, v, **rule)[:2] for k, v, rule in calls]
    dtype = compute_dtype(query)
    if sinks is not None:
        lse = jnp.broadcast_to(jnp.asarray(sinks, dtype), partials[0][1].shape)
        partials.append((jnp.zeros((), dtype) * partials[0][0], lse))
    return merge_partials(*partials).output


def weights_with_bias_kv(
    query: jax.Array, key: jax.Array, value: jax.Array, bias_k: Any, bias_v: Any, options: dict[str, Any]
) -> jax.Array:
    """Weights of the same attention, `[..., N, T, S + 1]`, the learned key last."""
    sinks, calls = _calls(query, key, value, bias_k, bias_v, options)
    log_sums = [jnp.swapaxes(attend_with_stats_heads(query, k, v, **rule).logsumexp, -1, -2) for k, v, rule in calls]
    log_total = jnp.logaddexp(*log_sums)
    if sinks is not None:
        log_total = jnp.logaddexp(log_total, jnp.asarray(sinks)[..., None])
    weights = [
        attention_weights_heads(query, k, v, **rule) * jnp.exp(lse - log_total)[..., None].astype(query.dtype)
        for (k, v, rule), lse in zip(calls, log_sums, strict=True)
    ]
    return jnp.concatenate(weights, axis=-1)


def _calls(
    query: jax.Array, key: jax.Array, value: jax.Array, bias_k: Any, bias_v: Any, options: dict[str, Any]
) -> tuple[Any, list[tuple[jax.Array, jax.Array, dict[str, Any]]]]:
    """Sinks or None, and operands and rules of the two attentions: over the sequence, and over the learned key.

    Sinks and `plus_one` are taken out of both normalizers: left in, the merge would count them twice.
    """
    normalize = options["normalize"] or softmax()
    if not isinstance(normalize, Softmax):
        raise ValueError(f"bias_kv: expected the softmax, whose parts can be merged, got normalize={normalize!r}.")
    bias_k, bias_v = (
        reshard(jnp.broadcast_to(x, (*like.shape[:-3], *x.shape)).astype(query.dtype), rows_sharding(like, -3))
        for x, like in ((bias_k, key), (bias_v, value))
    )
    sequence_rule = {**options, "normalize": softmax()}
    bias_rule = {**sequence_rule, "mask": None, "mods": (), "key_positions": jnp.array([BIAS_POSITION])}
    sinks = 0.0 if normalize.plus_one else normalize.sinks
    return sinks, [(key, value, sequence_rule), (bias_k, bias_v, bias_rule)]
