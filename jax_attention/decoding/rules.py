"""Rules that change every logit by itself: temperature, repetition penalty; and `greedy`, the choice without chance.

A rule is a value `rule(logits[..., V], seen[..., V]) -> logits`: pure, float32, with its number as a traced leaf, so
that another temperature runs the same compiled program. `seen` says which tokens stand in the row already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array, describe_array, fail_unless
from jax_attention.core.parts import FactoryRepr
from jax_attention.core.struct import array_field, struct

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class LogitTransform(FactoryRepr):
    """Base of the sampling rules: what `sampler` needs to know about each."""

    place: ClassVar[int]
    """Where it stands in the order of `sampler`; rules of one place keep the order in which they were given."""
    random: ClassVar[bool] = True
    """Whether it shapes the distribution that a token is drawn from, and so says nothing to `greedy`."""
    needs_seen: ClassVar[bool] = False
    """Whether it looks at `seen`."""

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """Logits `[..., V]` after the rule; forbidden tokens have -inf."""
        raise NotImplementedError


@struct
class RepetitionPenalty(LogitTransform):
    """Logits of seen tokens, divided if positive and multiplied if negative; see `repetition_penalty`."""

    penalty: jax.Array | float = array_field()

    place, random, needs_seen = 0, False, True

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        fail_unless(seen is not None, "seen: expected bool [..., V], the tokens of the row, got None.", TypeError)
        penalty = per_row(self.penalty)
        return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


@struct
class UserLogitTransform(LogitTransform):
    """A plain function `f(logits, seen) -> logits` as a rule; it is static, so pass the same function each time."""

    function: Callable

    place, random, needs_seen = 1, False, True

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        changed = self.function(logits, seen)
        fail_unless(
            getattr(changed, "shape", None) == logits.shape,
            f"rule {self!r}: expected the function to return logits of shape {logits.shape}, got "
            f"{describe_array(changed)}. Forbid a token by -inf instead of leaving it out.",
        )
        return changed.astype(logits.dtype)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", None) or repr(self.function)


@struct
class Temperature(LogitTransform):
    """`logits / temperature`; see `temperature`."""

    temperature: jax.Array | float = array_field()

    place = 2

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        return logits / per_row(self.temperature)


@struct
class Greedy(LogitTransform):
    """Take the token with the largest logit; see `greedy`."""

    place, random = 9, False

    def __call__(self, logits: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        return logits


def per_row(x: jax.Array | float) -> jax.Array | float:
    """One number for all rows, or one per row `[...] -> [..., 1]`."""
    return x if isinstance(x, (int, float)) else jnp.asarray(x)[..., None]


def check_number(name: str, x: Any, fits: Callable[[float], bool], expected: str, cure: str) -> Any:
    """A real number that `fits`, or an array of one per row, which may be traced and so is not looked into."""
    x = check_array(name, x)
    fail_unless(not isinstance(x, float) or fits(x), f"{name}: expected {expected}, got {x}. {cure}")
    return x


def temperature(temperature: Float[Array, "*lead"] | float) -> Temperature:
    """Divide the logits: above 1 rare tokens become likelier, below 1 frequent ones do.

        logits' = logits / temperature

    Args:
        temperature: a positive number, or an array of one per row, `[...]`.

    Returns:
        A rule for `sampler`; another number does not recompile.

    Raises:
        ValueError: if it is a number and not positive (arrays are not looked into: they may be traced).
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


def repetition_penalty(penalty: Float[Array, "*lead"] | float) -> RepetitionPenalty:
    """Make tokens that stand in the row already, prompt included, less likely.

        logit' = logit / penalty  if logit > 0  else  logit * penalty          for seen tokens

    Args:
        penalty: a positive number, or an array of one per row, `[...]`. 1 changes nothing, 1.2 is usual, below 1
            invites repetition.

    Returns:
        A rule for `sampler`; another number does not recompile. Called by itself it needs `seen`, bool `[..., V]`.

    Raises:
        ValueError: if it is a number and not positive (arrays are not looked into: they may be traced).
        TypeError: if it is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import decoding
        >>> decoding.repetition_penalty(2.0)(jnp.array([4.0, -4.0, 4.0]), jnp.array([True, True, False]))
        Array([ 2., -8.,  4.], dtype=float32)

    Reference:
        Keskar et al. (2019), "CTRL: a conditional transformer language model for controllable generation", section
        4.1. Differs from Hugging Face, which counts the padding of a batch as seen: here padding is nothing.
    """
    cure = "1.0 changes nothing; leave the rule out to switch it off."
    return RepetitionPenalty(check_number("penalty", penalty, lambda p: p > 0, "a positive number", cure))


def greedy() -> Greedy:
    """Take the most likely token; the first of equal ones. No randomness, so rules that shape chances are refused.

        token = argmax(logits)

    Args: none; it stands alone, or after `repetition_penalty` and plain functions.

    Returns:
        A rule for `sampler`.

    Raises:
        Nothing. `sampler` refuses it beside `temperature`, `top_k`, `top_p` or `min_p`, which it would ignore.

    Example:
        >>> from jax_attention import decoding
        >>> decoding.sampler(decoding.greedy(), decoding.repetition_penalty(1.2))
        sampler(repetition_penalty(penalty=1.2), greedy())

    Reference:
        https://github.com/huggingface/transformers/issues/14236: a temperature without sampling, silently ignored.
    """
    return Greedy()
