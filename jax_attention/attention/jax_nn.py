"""The signature of `jax.nn.dot_product_attention`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jax_attention import masks, mods, scores
from jax_attention.attention.attend import attend_heads, attend_with_stats_heads
from jax_attention.core.checks import check_operand, describe_array, fail_unless
from jax_attention.implementations.base import Implementation

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int


def dot_product_attention(
    query: Float[Array, "*batch T N H"],
    key: Float[Array, "*batch S K H"],
    value: Float[Array, "*batch S K E"],
    bias: Float[Array, "*any #T #S"] | None = None,
    mask: Bool[Array, "*any #T #S"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, "B"] | None = None,
    key_value_seq_lengths: Int[Array, "B"] | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    implementation: str | Implementation | None = None,
    return_residual: bool = False,
) -> Any:
    """Scaled dot-product attention with the signature of `jax.nn.dot_product_attention`: change the import.

        softmax(scale * Q K^T + bias, over the pairs that mask, causality, lengths and window allow) V

    Args:
        query: `[B, T, N, H]` or `[T, N, H]`.
        key: `[B, S, K, H]` or `[S, K, H]`, N a multiple of K.
        value: `[B, S, K, E]` or `[S, K, E]`; E may differ from H.
        bias: added to the scaled scores, at least `[N, T, S]`, broadcastable to `[B, N, T, S]`.
        mask: bool, True = may attend, at least `[N, T, S]`, broadcastable to `[B, N, T, S]`. A padding mask `[B, S]` is
            `mask[:, None, None, :]`.
        scale: `1 / sqrt(H)` if None.
        is_causal: key s is visible to query t if s <= t (aligned at the start).
        query_seq_lengths: integers `[B]`; later queries get output 0.
        key_value_seq_lengths: integers `[B]`; later keys are not attended to.
        local_window_size: `(left, right)` keys around the query, itself not counted; one int means both.
        implementation: as in `attend`, or jax.nn's "xla", which is `reference` here.
        return_residual: also return the logsumexp `[B, T, N]`.

    Returns:
        `[B, T, N, E]`, or `(output, logsumexp)`.

    Raises:
        TypeError: if `mask` is not boolean, lengths are not integer, or operands are not floating, of one dtype.
        ValueError: if shapes do not fit, or the implementation does not exist.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import dot_product_attention
        >>> x = jnp.ones((2, 5, 8, 4))
        >>> dot_product_attention(x, x, x, is_causal=True).shape
        (2, 5, 8, 4)

    Reference:
        https://docs.jax.dev/en/latest/_autosummary/jax.nn.dot_product_attention.html

    Differs from jax.nn: a query without any allowed key gets 0 (there: the mean of all values, padding included);
    a mask or bias of one or two axes is refused (there: a padding mask `[B, S]` is read as `[T, S]` where B = T);
    float64 is not cast to float32; the logsumexp is differentiable and at least float32; E may differ from H.
    """
    query = check_operand("query", query, 3, "[B, T, N, H] or [T, N, H]")
    key = check_operand("key", key, 3, "[B, S, K, H] or [S, K, H]")
    fail_unless(
        query.ndim in (3, 4) and key.ndim == query.ndim == jnp.ndim(value),
        "query, key, value: expected [B, T, N, H], [B, S, K, H] and [B, S, K, E], or all without B, got "
        f"{describe_array(query)}, {describe_array(key)}, {describe_array(value)}. "
        "attend_heads takes any number of leading axes.",
    )
    dtypes = [jnp.asarray(x).dtype for x in (query, key, value)]
    fail_unless(
        len(set(dtypes)) == 1,
        f"query, key, value: expected one dtype, as in jax.nn, got {', '.join(map(str, dtypes))}. Cast them, or use "
        "attend_heads, which takes different ones.",
        TypeError,
    )
    pairs = (query.shape[-3], key.shape[-3])
    allowed: list[masks.Mask] = [masks.causal()] if is_causal else []
    if mask is not None:
        allowed.append(masks.dense(_for_scores("mask", mask, query.ndim, pairs)))
    if local_window_size is not None:
        allowed.append(masks.from_jax_nn_window(local_window_size))
    if query_seq_lengths is not None or key_value_seq_lengths is not None:
        keys = _per_batch("key_value_seq_lengths", key_value_seq_lengths, query)
        allowed.append(masks.lengths(keys, _per_batch("query_seq_lengths", query_seq_lengths, query)))
    options = {
        "score": scores.scaled_dot(scale),
        "mods": () if bias is None else (mods.bias(_for_scores("bias", bias, query.ndim, pairs)),),
        "mask": functools.reduce(lambda a, b: a & b, allowed) if allowed else None,
        "implementation": "reference" if implementation == "xla" else implementation,
    }
    if not return_residual:
        return attend_heads(query, key, value, **options)
    result = attend_with_stats_heads(query, key, value, **options)
    return result.output, result.logsumexp


def _for_scores(name: str, x: Any, rank: int, pairs: tuple[int, int]) -> jax.Array:
    """A mask or bias that broadcasts to `[B, N, T, S]`; `[B, S]` padding masks are refused, as ambiguous."""
    x = jnp.asarray(x)
    if x.ndim > rank:
        fail_unless(
            all(size == 1 for size in x.shape[: x.ndim - rank]),
            f"{name}: expected at most {rank} axes for operands without batch, got {describe_array(x)}.",
        )
        x = x.reshape(x.shape[x.ndim - rank :])
    cure = f"A [B, S] padding mask is {name}[:, None, None, :]; one for all heads and batches is {name}[None, None]."
    fail_unless(
        x.ndim >= 3, f"{name}: expected axes [B, N, T, S] (sizes of 1 broadcast), got {describe_array(x)}. {cure}"
    )
    for axis, size, known in zip("TS", x.shape[-2:], pairs, strict=True):
        fail_unless(
            size in (1, known),
            f"{name}: expected axis {axis} of [B, N, T, S] to be {known} or 1, got {describe_array(x)}. {cure}",
        )
    return x


def _per_batch(name: str, x: Any, query: jax.Array) -> Any:
    if x is None:
        return None
    x = jnp.asarray(x)
    expected = query.shape[:-3] or (1,)
    fail_unless(
        x.shape in (expected, ()),
        f"{name}: expected one length per batch element, {expected}, got {describe_array(x)}.",
    )
    return x if x.ndim == 0 else x[0] if query.ndim == 3 else x[:, None]
