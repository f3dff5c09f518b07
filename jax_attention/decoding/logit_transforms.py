"""Logit transforms: changes of the next token's logits before a token is chosen.

A transform is a struct with the call `transform(logits[..., V], history) -> logits`: pure, in float32, with its number
as an array field, so that another temperature runs the same compiled program. The history has the tokens of each row so
far and the number of new ones. A forbidden token gets the logit -inf.

All equal the classes of the same name in Hugging Face transformers on the same logits. That includes ties for `top_k`,
`top_p` and `min_p`: tokens are ordered as by a stable ascending sort, and dropped from the front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array, check_int, describe_array, fail_unless
from jax_attention.core.short_repr import FactoryRepr, describe
from jax_attention.core.struct import array_field, struct
from jax_attention.decoding.history import History
from jax_attention.decoding.ranking import count_light_tail, is_among_smallest, kth_largest, sort_keys

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


class LogitTransform(FactoryRepr):
    """Base of the logit transforms, with the properties that `sampler` reads."""

    order: ClassVar[int]
    """Position in a sampler: lower numbers first, equal numbers in the order of the arguments."""
    sampling_only: ClassVar[bool] = True
    """Whether the transform only shapes the distribution that a token is drawn from, so that `greedy` ignores it."""
    needs_seen: ClassVar[bool] = False
    """Whether the transform reads `history.seen`."""

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        """Changed logits `[..., V]`; forbidden tokens have -inf."""
        raise NotImplementedError


@struct
class UserLogitTransform(LogitTransform):
    """A plain function `f(logits, history) -> logits`; it is static, so another function object recompiles."""

    function: Callable

    order, sampling_only, needs_seen = 3, False, True

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        changed = self.function(logits, history)
        fail_unless(
            getattr(changed, "shape", None) == logits.shape,
            f"logit transform {self!r}: expected the function to return logits of shape {logits.shape}, got "
            f"{describe_array(changed)}. Forbid a token by -inf instead of leaving it out.",
        )
        return changed.astype(logits.dtype)

    def __repr__(self) -> str:
        return describe(self.function)


@struct
class Temperature(LogitTransform):
    """`logits / temperature`; see `temperature`."""

    temperature: jax.Array | float = array_field()

    order = 4

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        return logits / per_row(self.temperature)


@struct
class TopK(LogitTransform):
    """The k largest logits and all that equal the last of them; see `top_k`."""

    k: jax.Array | int = array_field()

    order = 5

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        keys = sort_keys(logits)
        return jnp.where(keys < kth_largest(keys, self.k), -jnp.inf, logits)


@struct
class TopP(LogitTransform):
    """The fewest tokens that together have probability p; see `top_p`."""

    tail: jax.Array | float = array_field()
    """1 - p, computed in Python and rounded to float32 once. PyTorch does the same; 1 - float32(p) would be another
    number, and would move tokens at the border.
    """
    min_tokens_to_keep: int = 1

    order = 6

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        keys = sort_keys(logits)
        dropped = count_light_tail(keys, jax.nn.softmax(logits, axis=-1), self.tail)
        max_dropped = max(0, logits.shape[-1] - self.min_tokens_to_keep)
        return jnp.where(is_among_smallest(keys, jnp.minimum(dropped, max_dropped)), -jnp.inf, logits)

    def __repr__(self) -> str:
        p = f"{1 - self.tail:.12g}" if isinstance(self.tail, float) else describe_array(self.tail)
        keep = "" if self.min_tokens_to_keep == 1 else f", min_tokens_to_keep={self.min_tokens_to_keep}"
        return f"top_p({p}{keep})"


@struct
class MinP(LogitTransform):
    """The tokens with at least p times the probability of the likeliest; see `min_p`."""

    p: jax.Array | float = array_field()
    min_tokens_to_keep: int = 1

    order = 7

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        probabilities = jax.nn.softmax(logits, axis=-1)
        unlikely = probabilities < per_row(self.p) * jnp.max(probabilities, axis=-1, keepdims=True)
        if self.min_tokens_to_keep > 1:
            unlikely &= is_among_smallest(sort_keys(logits), max(0, logits.shape[-1] - self.min_tokens_to_keep))
        return jnp.where(unlikely, -jnp.inf, logits)


@struct
class Greedy(LogitTransform):
    """The choice of the token with the largest logit; see `greedy`."""

    order, sampling_only = 9, False

    def __call__(self, logits: jax.Array, history: History | None = None) -> jax.Array:
        return logits


def temperature(temperature: Float[Array, "*batch"] | float) -> Temperature:
    """Divide the logits: above 1 rare tokens become likelier, below 1 frequent ones do.

        logits' = logits / temperature

    Args:
        temperature: a positive number, or an array `[...]` with one per row.

    Returns:
        A logit transform for `sampler`; another number does not recompile.

    Raises:
        ValueError: if it is a number and not positive (arrays may be traced, so their entries are not checked).
        TypeError: if it is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> decoding.temperature(2.0)(jnp.array([4.0, 8.0]))
        Array([2., 4.], dtype=float32)

    Reference:
        Ackley, Hinton, Sejnowski (1985), "A learning algorithm for Boltzmann machines".
    """
    cure = "For the most likely token use greedy()."
    return Temperature(check_number("temperature", temperature, lambda t: t > 0, "a positive number", cure))


def top_k(k: Int[Array, "*batch"] | int) -> TopK:
    """Keep the k likeliest tokens; tokens as likely as the k-th stay too.

        logit' = logit  if logit >= (k-th largest logit)  else  -inf

    Args:
        k: a number of at least 1, or an integer array `[...]` with one per row; above V it keeps everything.

    Returns:
        A logit transform for `sampler`; another k does not recompile.

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
    return TopK(check_count("k", k, "Leave top_k out to keep every token."))


def top_p(p: Float[Array, "*batch"] | float, *, min_tokens_to_keep: int = 1) -> TopP:
    """Keep the likeliest tokens that together have probability p (the nucleus).

        drop, from the least likely on, every token whose cumulative probability is at most 1 - p

    Args:
        p: `0 < p <= 1`, or an array `[...]` with one per row; at 1 all but impossible tokens stay.
        min_tokens_to_keep: this many of the likeliest tokens stay whatever p is; static.

    Returns:
        A logit transform for `sampler`; another p does not recompile.

    Raises:
        ValueError: if p is a number outside of (0, 1] (arrays may be traced, so their entries are not checked), or
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
    return TopP(1 - p, _check_min_tokens(min_tokens_to_keep))


def min_p(p: Float[Array, "*batch"] | float, *, min_tokens_to_keep: int = 1) -> MinP:
    """Keep the tokens that are at least p times as likely as the likeliest.

        logit' = logit  if probability >= p * max(probability)  else  -inf

    Args:
        p: `0 < p <= 1`, or an array `[...]` with one per row; 0.05 to 0.2 are usual.
        min_tokens_to_keep: this many of the likeliest tokens stay whatever p is; static.

    Returns:
        A logit transform for `sampler`; another p does not recompile.

    Raises:
        ValueError: if p is a number outside of (0, 1] (arrays may be traced, so their entries are not checked), or
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
    return MinP(p, _check_min_tokens(min_tokens_to_keep))


def greedy() -> Greedy:
    """Take the most likely token, the first of equal ones, without randomness.

        token = argmax(logits)

    It combines with `repetition_penalty`, `no_repeat_ngram_size`, `min_new_tokens` and plain functions. `sampler`
    refuses it together with `temperature`, `top_k`, `top_p` or `min_p`, which it would ignore.

    Returns:
        A logit transform for `sampler`.

    Example:
        >>> from jax_attention import decoding
        >>> decoding.sampler(decoding.greedy(), decoding.repetition_penalty(1.2))
        sampler(repetition_penalty(penalty=1.2), greedy())

    Reference:
        https://github.com/huggingface/transformers/issues/14236: a temperature without sampling, silently ignored.
    """
    return Greedy()


def per_row(x: jax.Array | float) -> jax.Array | float:
    """One number for all rows, or one per row `[...] -> [..., 1]`."""
    return x if isinstance(x, (int, float)) or x.ndim == 0 else jnp.asarray(x)[..., None]


def check_number(name: str, x: Any, is_valid: Callable[[float], bool], expected: str, cure: str) -> Any:
    """Return a valid real number, or an array with one per row, whose entries are not checked as it may be traced."""
    x = check_array(name, x)
    fail_unless(not isinstance(x, float) or is_valid(x), f"{name}: expected {expected}, got {x}. {cure}")
    return x


def check_count(name: str, x: Any, cure: str) -> Any:
    """Return an int of at least 1, or an integer array with one per row, whose entries are not checked."""
    if isinstance(x, jax.Array) or getattr(x, "ndim", 0):
        message = f"{name}: expected integers, got {describe_array(x)}. Cast them: {name}.astype(jnp.int32)."
        fail_unless(jnp.issubdtype(x.dtype, jnp.integer), message, TypeError)
        return x
    return check_int(name, x, 1, cure)


def _check_min_tokens(count: Any) -> int:
    return check_int("min_tokens_to_keep", count, 1, "It is the number of likeliest tokens that always stay.")
