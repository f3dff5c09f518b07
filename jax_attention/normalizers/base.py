"""The contract of a normalizer: a numerator for each key, a sum over keys, a division at the end."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import forbid
from jax_attention.core.part_checks import check_kind, check_parameters, check_returned
from jax_attention.core.short_repr import FactoryRepr
from jax_attention.core.struct import UserFunction, struct


class Normalizer(FactoryRepr):
    """A normalizer: `weights = numerator / denominator(total)`.

    The numerator of a key depends on its own score and on `row_max`, the largest score of the row (for the softmax),
    which is a constant to derivatives. `total` is a sum over keys, and so is the sum of numerators times values. Keys
    may therefore come in any number of tiles: if a later tile has a larger `row_max`, earlier sums are multiplied by
    `rescale` (online softmax), and at the end weights and outputs are divided by the same denominator.

    `where` is bool `[..., t, s]`, the pairs that may attend. Other pairs have the scores that `forbid` gives them, and
    their numerators must be 0. A normalizer that needs whole rows sets `one_pass = False` and defines only `__call__`.
    """

    part = "normalize"

    one_pass = True

    def forbid(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores and mask for the other methods: forbidden scores become 0, so that no derivative meets inf or NaN."""
        return forbid(scores, where)

    def row_max(self, scores: jax.Array, where: jax.Array) -> jax.Array | None:
        """Row maximum of this tile, `[..., t, 1]`, -inf for a row without keys; None if the normalizer needs none."""
        return None

    def rescale(self, old: Any, new: Any) -> jax.Array | float:
        """Factor `[..., t, 1]` for sums of earlier tiles when the row maximum grows from `old` to `new`.

        It must be differentiable in the normalizer's arrays, without NaN where `old` is -inf: JAX differentiates
        through it where a `lax.map` over the batch has inlined the derivative rule of the tile scan.
        """
        return 1.0

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: Any) -> jax.Array:
        """Numerators `[..., t, s]`, each a function of its own score."""
        raise NotImplementedError(f"{type(self).__name__} must define numerator(scores, where, row_max)")

    def total(self, numerator: jax.Array, where: jax.Array) -> jax.Array:
        """The argument of `denominator`, summed over the keys of a tile, `[..., t, 1]`."""
        return jnp.sum(numerator, axis=-1, keepdims=True)

    def denominator(self, total: jax.Array, row_max: Any) -> jax.Array | float:
        """The denominator of weights and outputs, `[..., t, 1]`, never 0."""
        return 1.0

    def of_logarithm(self) -> Normalizer | None:
        """The normalizer that gives `log(score)` the weights that this one gives `score`, or None."""
        return None

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """Weights over whole rows."""
        numerator, denominator = self.quotient(*self.forbid(scores, broadcast_where(scores, where)))
        return numerator / denominator

    def quotient(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array | float]:
        """Numerators and denominators of the weights over whole rows, after `forbid`."""
        if not self.one_pass:
            return self(scores, where), 1.0
        row_max = self.row_max(scores, where)
        numerator = self.numerator(scores, where, row_max)
        return numerator, self.denominator(self.total(numerator, where), row_max)


def broadcast_where(scores: jax.Array, where: jax.Array | None) -> jax.Array:
    """`where` broadcast to the shape of the scores; all True for None."""
    return jnp.ones(scores.shape, bool) if where is None else jnp.broadcast_to(where, scores.shape)


@struct
class UserNormalizer(UserFunction, Normalizer):
    """A user's function `(scores[..., t, S], where[..., t, S]) -> weights[..., t, S]` over whole rows."""

    one_pass = False

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        where, scores = broadcast_where(scores, where), self.merge_heads(scores)
        weights = self.function(scores, self.merge_heads(where))
        check_returned(f"normalize {self!r}", weights, scores.shape)
        return jnp.where(where, self.split_heads(weights), 0)


def as_normalizer(x: Any) -> Normalizer:
    """A normalizer, or a plain function made into one: what `attend` does with its `normalize` argument.

        as_normalizer(n) = n,        as_normalizer(f)(z, where) = f(z, where) where allowed, else 0

    Args:
        x: a normalizer, or `f(scores[..., T, S], where[..., T, S]) -> weights[..., T, S]` over whole rows.

    Returns:
        A normalizer.

    Raises:
        ValueError: when the normalizer is called, if `f` returns another shape.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> rule = normalizers.as_normalizer(lambda z, where: jax.nn.sigmoid(z))
        >>> rule(jnp.zeros((1, 2)), where=jnp.array([[True, False]]))
        Array([[0.5, 0. ]], dtype=float32)
    """
    check_kind("normalize", x)
    if isinstance(x, Normalizer):
        return x
    check_parameters("normalize", x, ("scores", "where"))
    return UserNormalizer(x)


def count(where: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Number of keys that each row may attend to, `[..., t, 1]`."""
    return jnp.sum(where, axis=-1, keepdims=True, dtype=dtype)
