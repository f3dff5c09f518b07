"""The contract of a score: project query and key once, then compare any block of queries with any block of keys."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import zero_rows
from jax_attention.core.part_checks import check_kind, check_parameters, check_returned
from jax_attention.core.short_repr import FactoryRepr
from jax_attention.core.struct import UserFunction, struct


class Score(FactoryRepr):
    """A score: `scores = tile(*project(query, key))`.

    `project` runs once over all rows and takes time linear in their number; `tile` may then be called on any block of
    projected queries and any block of projected keys. Batch dimensions broadcast in both.
    """

    part = "score"

    needs_equal_sizes = False  # query and key must have the same number of features; `attend` checks it
    numbers_per_pair = 1  # numbers that `tile` forms for each pair of rows: their memory limits the size of tiles
    key_per_query = False  # key row t goes with query row t, not with column t of the scores
    is_product = False  # tile(q', k') = q' k'^T: linear attention may then sum over keys before it reads the queries
    may_forbid_pairs = False  # the score of two finite rows may be -inf, which forbids the pair as a mask would

    def center(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Query and key moved to where rounding is small, if that changes no score; sees all keys of the call."""
        return query, key

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`[..., T, Hq], [..., S, Hk] -> ([..., T, P], [..., S, P'])`, once per call."""
        return query, key

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """Scores `[..., t, s]` of projected rows `[..., t, P]` against projected columns `[..., s, P']`."""
        raise NotImplementedError(f"{type(self).__name__} must define tile(query, key)")

    def logarithm(self) -> Score | None:
        """The score whose exponential this one is, or None where the exponential itself is computed.

        A normalizer that divides by the sum is then computed as a softmax of the logarithm, which cannot overflow.
        """
        return None

    def columns(self, key: jax.Array) -> int:
        """S, the number of columns of the scores."""
        return key.shape[-2]

    def zero_unused(
        self, query: jax.Array, key: jax.Array, row_used: jax.Array, column_used: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Query and key with rows on which no allowed score depends set to 0, so that NaN there does not spread."""
        return zero_rows(query, row_used), zero_rows(key, row_used if self.key_per_query else column_used)

    def __call__(self, query: jax.Array, key: jax.Array) -> jax.Array:
        """All scores `[..., T, S]` of one query block against one key block."""
        return self.tile(*self.project(*self.center(query, key)))


@struct
class UserScore(UserFunction, Score):
    """A user's function `(query[..., t, H], key[..., s, H]) -> scores[..., t, s]`."""

    may_forbid_pairs = True

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        if self.heads is not None:  # the function sees one axis of N heads, as in the arrays that it closes over
            key = jnp.broadcast_to(key, (*key.shape[:-3], self.heads[1], *key.shape[-2:]))
        query, key = self.merge_heads(query), self.merge_heads(key)
        scores = self.function(query, key)
        batch = jnp.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        check_returned(f"score {self!r}", scores, (*batch, query.shape[-2], key.shape[-2]))
        return self.split_heads(scores)


def as_score(x: Any) -> Score:
    """A score, or a plain function made into one: what `attend` does with its `score` argument.

        as_score(score) = score,        as_score(f).tile(q, k) = f(q, k)

    Args:
        x: a score, or `f(query[..., t, H], key[..., s, H]) -> scores[..., t, s]`.

    Returns:
        A score; arrays that `f` closes over stay differentiable.

    Raises:
        ValueError: when the score is called, if `f` returns another shape.

    Example:
        >>> from jax_attention import scores
        >>> scores.as_score(lambda q, k: q @ k.T), scores.as_score(scores.dot())
        (<lambda>, dot())

    Reference:
        The plain functions of https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
    """
    check_kind("score", x)
    if isinstance(x, Score):
        return x
    check_parameters("score", x, ("query", "key"))
    return UserScore(x)
