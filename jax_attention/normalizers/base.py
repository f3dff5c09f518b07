"""The contract of a normalizer: per-row statistics that merge over key tiles, then weights from both."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.ground.checks import check_kind, check_returned
from jax_attention.ground.values import Plain, plain_value


class Normalizer:
    """Stage 2 of the sentence: `weights = weights(scores, where, finish(statistics(scores, where)))`.

    `where` is bool `[..., t, s]`: the pairs that may attend. Scores elsewhere are finite but mean nothing, and the
    weights there must be 0. `statistics` sees one tile of keys; `merge` joins those of two tiles, so a one-pass
    normalizer is a monoid; `finish` runs once per row, when all keys were seen (learned sinks enter here). Rules
    whose statistics need all keys at once say so by `one_pass = False`, and then `merge` is not defined.
    """

    part = "normalize"

    one_pass = True

    def statistics(self, scores: jax.Array, where: jax.Array) -> Any:
        """What the rows must remember of these keys: a pytree of `[..., t, 1]` arrays."""
        return ()

    def merge(self, a: Any, b: Any) -> Any:
        """Statistics of the union of two disjoint sets of keys, `a` before `b`."""
        return ()

    def finish(self, statistics: Any) -> Any:
        """Last touch when all keys were seen."""
        return statistics

    def weights(self, scores: jax.Array, where: jax.Array, statistics: Any) -> jax.Array:
        """Weights `[..., t, s]` of a tile, given the finished statistics of its rows."""
        raise NotImplementedError(f"{type(self).__name__} must define weights(scores, where, statistics)")

    def __call__(self, scores: jax.Array, where: jax.Array | None = None) -> jax.Array:
        """Weights over whole rows."""
        where = jnp.ones(scores.shape, bool) if where is None else jnp.broadcast_to(where, scores.shape)
        return self.weights(scores, where, self.finish(self.statistics(scores, where)))


@plain_value
class PlainNormalizer(Plain, Normalizer):
    """A user's function `(scores[..., t, S], where[..., t, S]) -> weights[..., t, S]` over whole rows."""

    one_pass = False

    def weights(self, scores: jax.Array, where: jax.Array, statistics: Any) -> jax.Array:
        seen = self.merged(scores)
        weights = self.function(seen, self.merged(where))
        check_returned(f"normalize {self!r}", weights, seen.shape)
        return jnp.where(where, self.parted(weights), 0)


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
    return x if isinstance(x, Normalizer) else PlainNormalizer(x)


def row_max(scores: jax.Array, where: jax.Array) -> jax.Array:
    """The largest allowed score per row, `[..., t, 1]`, -inf for an empty row or no keys; a constant to derivatives."""
    scores = jax.lax.stop_gradient(scores)
    return jnp.max(jnp.where(where, scores, -jnp.inf), axis=-1, keepdims=True, initial=-jnp.inf)


def count(where: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """How many keys each row may attend to, `[..., t, 1]`."""
    return jnp.sum(where, axis=-1, keepdims=True, dtype=dtype)


def finite_or_zero(x: jax.Array) -> jax.Array:
    """-inf (no key) becomes 0, so that differences of maxima never are -inf - -inf = NaN."""
    return jnp.where(jnp.isneginf(x), 0, x)
