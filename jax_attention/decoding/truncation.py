"""Rules that forbid unlikely tokens: top-k, top-p (nucleus), min-p. Forbidden tokens get the logit -inf.

Each equals the class of the same name in Hugging Face transformers on the same logits, ties included: tokens are
ordered as by a stable ascending sort, and dropped from the front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.struct import array_field, struct
from jax_attention.decoding.ranking import kth_largest, light_tail, smallest, sort_keys
from jax_attention.decoding.rules import LogitTransform, check_number, per_row

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@struct
class TopK(LogitTransform):
    """The k largest logits and whatever equals the last of them; see `top_k`."""

    k: jax.Array | int = array_field()

    place = 3

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        keys = sort_keys(logits)
        return jnp.where(keys < kth_largest(keys, self.k), -jnp.inf, logits)


@struct
class TopP(LogitTransform):
    """The fewest tokens that together have probability p; see `top_p`. `tail` is 1 - p, rounded once, as in PyTorch."""

    tail: jax.Array | float = array_field()
    min_tokens_to_keep: int = 1

    place = 4

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        keys = sort_keys(logits)
        dropped = light_tail(keys, jax.nn.softmax(logits, axis=-1), self.tail)
        most = max(0, logits.shape[-1] - self.min_tokens_to_keep)
        return jnp.where(smallest(keys, jnp.minimum(dropped, most)), -jnp.inf, logits)

    def __repr__(self) -> str:
        p = f"{1 - self.tail:.12g}" if isinstance(self.tail, float) else describe_array(self.tail)
        return f"top_p({p}{_shown(self.min_tokens_to_keep)})"


@struct
class MinP(LogitTransform):
    """The tokens with at least p times the probability of the likeliest; see `min_p`."""

    p: jax.Array | float = array_field()
    min_tokens_to_keep: int = 1

    place = 5

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        probabilities = jax.nn.softmax(logits, axis=-1)
        unlikely = probabilities < per_row(self.p) * jnp.max(probabilities, axis=-1, keepdims=True)
        if self.min_tokens_to_keep > 1:
            unlikely &= smallest(sort_keys(logits), max(0, logits.shape[-1] - self.min_tokens_to_keep))
        return jnp.where(unlikely, -jnp.inf, logits)


def _shown(keep: int) -> str:
    return "" if keep == 1 else f", min_tokens_to_keep={keep}"


def _check_keep(keep: Any) -> int:
    return check_int("min_tokens_to_keep", keep, 1, "It is the number of likeliest tokens that always stay.")


def top_k(k: Int[Array, "*lead"] | int) -> TopK:
    """Keep the k likeliest tokens; tokens as likely as the k-th stay too.

        logit' = logit  if logit >= (k-th largest logit)  else  -inf

    Args:
        k: a number of at least 1, or an integer array of one per row, `[...]`; above V it keeps everything.

    Returns:
        A rule for `sampler`; another k does not recompile.

    Raises:
        ValueError: if k is smaller than 1.
        TypeError: if k is not an integer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> decoding.top_k(2)(jnp.array([3.0, 1.0, 2.0, 2.0]))
        Array([  3., -inf,   2.,   2.], dtype=float32)

    Reference:
        Fan, Lewis, Dauphin (2018), "Hierarchical neural story generation", section 5.4.
    """
    if isinstance(k, jax.Array) or getattr(k, "ndim", 0):
        fits = jnp.issubdtype(k.dtype, jnp.integer)
        fail_unless(fits, f"k: expected integers, got {describe_array(k)}. Cast them: k.astype(jnp.int32).", TypeError)
        return TopK(k)
    return TopK(check_int("k", k, 1, "Leave top_k out to keep every token."))


def top_p(p: Float[Array, "*lead"] | float, *, min_tokens_to_keep: int = 1) -> TopP:
    """Keep the likeliest tokens that together have probability p (the nucleus).

        drop, from the least likely on, every token whose cumulative probability is at most 1 - p

    Args:
        p: `0 < p <= 1`, or an array of one per row, `[...]`; at 1 all but impossible tokens stay.
        min_tokens_to_keep: this many likeliest tokens stay whatever p says; static.

    Returns:
        A rule for `sampler`; another p does not recompile.

    Raises:
        ValueError: if p is a number outside of (0, 1] (arrays are not looked into: they may be traced), or
            `min_tokens_to_keep` is smaller than 1.
        TypeError: if p is not real, or `min_tokens_to_keep` not an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> decoding.top_p(0.75)(jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125])))
        Array([-0.6931472, -1.3862944,       -inf,       -inf], dtype=float32)

    Reference:
        Holtzman et al. (2020), "The curious case of neural text degeneration", section 3.1.
    """
    cure = "Leave top_p out to keep every token; for the likeliest one use greedy()."
    p = check_number("p", p, lambda p: 0 < p <= 1, "a probability, 0 < p <= 1", cure)
    return TopP(1 - p, _check_keep(min_tokens_to_keep))


def min_p(p: Float[Array, "*lead"] | float, *, min_tokens_to_keep: int = 1) -> MinP:
    """Keep the tokens that are at least p times as likely as the likeliest.

        logit' = logit  if probability >= p * max(probability)  else  -inf

    Args:
        p: `0 < p <= 1`, or an array of one per row, `[...]`; 0.05 to 0.2 are usual.
        min_tokens_to_keep: this many likeliest tokens stay whatever p says; static.

    Returns:
        A rule for `sampler`; another p does not recompile.

    Raises:
        ValueError: if p is a number outside of (0, 1] (arrays are not looked into: they may be traced), or
            `min_tokens_to_keep` is smaller than 1.
        TypeError: if p is not real, or `min_tokens_to_keep` not an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> decoding.min_p(0.5)(jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125])))
        Array([-0.6931472, -1.3862944,       -inf,       -inf], dtype=float32)

    Reference:
        Nguyen et al. (2024), "Turning up the heat: min-p sampling for creative and coherent LLM outputs".
    """
    cure = "Leave min_p out to keep every token."
    p = check_number("p", p, lambda p: 0 < p <= 1, "a share of the largest probability, 0 < p <= 1", cure)
    return MinP(p, _check_keep(min_tokens_to_keep))
