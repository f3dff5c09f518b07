"""Merge attention over disjoint sets of keys into attention over all of them."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.checks import broadcasts, describe_array, fail_unless
from jax_attention.core.short_repr import short_repr

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@short_repr
class Partial(NamedTuple):
    """Attention over some of the keys: `output[..., E]` and the `logsumexp[...]` of its scores."""

    output: Float[Array, "*rows E"]
    logsumexp: Float[Array, "*rows"]


def merge_partials(*partials: tuple[Float[Array, "*#rows E"], Float[Array, "*#rows"]]) -> Partial:
    """Softmax attention over all keys, from attention over disjoint sets of them.

        logsumexp = log sum_i exp(lse_i),        output = sum_i exp(lse_i - logsumexp) output_i

    Exact, differentiable, associative and commutative (to rounding). Partials without any allowed key (`lse = -inf`)
    drop out; if all are, the output is 0. It needs the plain softmax: with sinks, merge the partials without them and
    add the sink as one more partial `(zeros(E), sink)`.

    Args:
        partials: pairs `(output[..., E], logsumexp[...])`, as `attend_with_stats` and `attend_with_stats_heads`
            return first; their shapes broadcast.

    Returns:
        `Partial(output, logsumexp)`; the output has the dtype of the first output.

    Raises:
        ValueError: if none is given, or an output does not broadcast to its logsumexp in all but the last axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attend, attend_with_stats, merge_partials
        >>> q, k = jnp.eye(2), jnp.arange(8.).reshape(4, 2)
        >>> parts = [attend_with_stats(q, x, x)[:2] for x in (k[:1], k[1:])]
        >>> bool(jnp.allclose(merge_partials(*parts).output, attend(q, k, k), atol=1e-6))
        True

    Reference:
        Milakov, Gimelshein (2018), "Online normalizer calculation for softmax"; Liu, Zaharia, Abbeel (2023), "Ring
        attention with blockwise transformers".
    """
    fail_unless(len(partials) > 0, "partials: expected at least one pair (output, logsumexp), got none.")
    outputs, sums = zip(*((jnp.asarray(o), jnp.asarray(s)) for o, s, *_ in partials), strict=True)
    for i, (output, lse) in enumerate(zip(outputs, sums, strict=True)):
        fail_unless(
            broadcasts(output.shape[:-1], lse.shape),
            f"partials[{i}]: expected logsumexp[...] for output[..., E], got {describe_array(lse)} for "
            f"{describe_array(output)}.",
        )
    return _merge(outputs, sums)


@jax.jit  # One program; and operation by operation, jax_debug_infs would refuse the -inf of rows without keys.
def _merge(outputs: tuple[jax.Array, ...], sums: tuple[jax.Array, ...]) -> Partial:
    largest = jax.lax.stop_gradient(jnp.max(jnp.stack(jnp.broadcast_arrays(*sums)), axis=0))
    largest = jnp.where(jnp.isneginf(largest), 0, largest)
    parts = [_exp(lse, largest) for lse in sums]
    total = functools.reduce(operator.add, parts)
    safe = jnp.where(total > 0, total, 1)
    terms = [(part / safe)[..., None] * x.astype(part.dtype) for part, x in zip(parts, outputs, strict=True)]
    output = functools.reduce(operator.add, terms)
    logsumexp = jnp.where(total > 0, largest + jnp.log(safe), -jnp.inf)
    return Partial(output.astype(outputs[0].dtype), logsumexp)


def _exp(lse: jax.Array, largest: jax.Array) -> jax.Array:
    """exp(lse - largest), exactly 0 with gradient 0 where there were no keys."""
    has_keys = ~jnp.isneginf(lse)
    return jnp.where(has_keys, jnp.exp(jnp.where(has_keys, lse - largest, 0)), 0)
