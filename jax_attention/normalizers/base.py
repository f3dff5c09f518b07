"""The contract of a normalizer: what each key contributes, summed over keys, then divided."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_kind, check_returned
from jax_attention.core.numerics import forbid
from jax_attention.core.parts import FactoryRepr, UserFunction
from jax_attention.core.struct import struct


class Normalizer(FactoryRepr):
    """Stage 2 of the sentence: `weights = numerator / denominator(total)`.

    Each key has a numerator by itself, given the row's `row_max` (the largest score, for softmax), a constant to
    derivatives. `total` is summed over keys, and so may be numerators times values: keys may come in any number of
    tiles, and weights and outputs are divided by the same denominator. Where a later tile has a larger row_max, earlier
    sums are multiplied by `rescale`.

    `where` is bool `[..., t, s]`: the pairs that may attend. Scores elsewhere are what `forbid` made of them, and
    numerators there must be 0. Rules that need a whole row at once say so by `one_pass = False` and define `__call__`
    alone.
    """

    part = "normalize"

    one_pass = True

    def forbid(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What is forbidden becomes 0 before the rule sees it, so that no derivative of it meets inf or NaN."""
        return forbid(scores, where)

    def row_max(self, scores: jax.Array, where: jax.Array) -> jax.Array | None:
        """`[..., t, 1]`, the largest over tiles counts, -inf for none; None for rules without one."""
        return None

    def rescale(self, old: Any, new: Any) -> jax.Array | float:
        """The factor `[..., t, 1]` of earlier sums where the row_max grew from `old` to `new`."""
        return 1.0

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: Any) -> jax.Array:
        """`[..., t, s]`, each from its own score."""
        raise NotImplementedError(f"{type(self).__name__} must define numerator(scores, where, row_max)")

    def total(self, numerator: jax.Array, where: jax.Array) -> jax.Array:
        """`[..., t, 1]`, what the denominator needs to know, summed over a tile."""
        return jnp.sum(numerator, axis=-1, keepdims=True)

    def denominator(self, total: jax.Array, row_max: Any) -> jax.Array | float:
        """`[..., t, 1]`, never 0."""
        return 1.0

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """Weights over whole rows."""
        numerator, denominator = self.quotient(*self.forbid(scores, everywhere(scores, where)))
        return numerator / denominator

    def quotient(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array | float]:
        """Numerators and denominators of the weights over whole rows, after `forbid`."""
        if not self.one_pass:
            return self(scores, where), 1.0
        row_max = self.row_max(scores, where)
        numerator = self.numerator(scores, where, row_max)
        return numerator, self.denominator(self.total(numerator, where), row_max)


def everywhere(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    """`where` in the shape of the scores; all pairs if None."""
    return jnp.ones(scores.shape, bool) if where is None else jnp.broadcast_to(where, scores.shape)


@struct
class UserNormalizer(UserFunction, Normalizer):
    """A user's function `(scores[..., t, S], where[..., t, S]) -> weights[..., t, S]` over whole rows."""

    one_pass = False

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        where, seen = everywhere(scores, where), self.merge_heads(scores)
        weights = self.function(seen, self.merge_heads(where))
        check_returned(f"normalize {self!r}", weights, seen.shape)
        return jnp.where(where, self.split_heads(weights), 0)


def as_normalizer(x: Any) -> Normalizer:
    """A normalizer, or a plain function made into one: what `attend` does with its `normalize` argument.

        as_normalizer(n) = n,        as_normalizer(f)(z, where) = f(z, where) where allowed, else 0

    Args:
        x: a value, or `f(scores[..., T, S], where[..., T, S]) -> weights[..., T, S]` over whole rows.

    Returns:
        A normalizer.

    Raises:
        ValueError: by the value, when `f` returns another shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> rule = normalizers.as_normalizer(lambda z, where: jax.nn.sigmoid(z))
        >>> rule(jnp.zeros((1, 2)), where=jnp.array([[True, False]]))
        Array([[0.5, 0. ]], dtype=float32)

    Reference:
        See `attend`.
    """
    check_kind("normalize", x)
    return x if isinstance(x, Normalizer) else UserNormalizer(x)


def row_max(scores: jax.Array) -> jax.Array:
    """The largest score per row, `[..., t, 1]`, -inf for an empty row or no keys; a constant to derivatives."""
    return jnp.max(jax.lax.stop_gradient(scores), axis=-1, keepdims=True, initial=-jnp.inf)


def count(where: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """How many keys each row may attend to, `[..., t, 1]`."""
    return jnp.sum(where, axis=-1, keepdims=True, dtype=dtype)


def finite_or_zero(x: jax.Array) -> jax.Array:
    """-inf (no key) becomes 0, so that differences of maxima never are -inf - -inf = NaN."""
    return jnp.where(jnp.isneginf(x), 0, x)
