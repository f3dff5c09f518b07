"""What every implementation is given: checked operands, the four parts of the rule, positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.dropout import Dropout
from jax_attention.ground.numerics import compute_dtype, zero_rows
from jax_attention.masks import Mask
from jax_attention.mods import Mod
from jax_attention.normalizers import Normalizer
from jax_attention.scores import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Problem(NamedTuple):
    """One attention call. Heads are leading axes like any other.

    Operands, positions and the arrays inside the rule all have the same number of leading axes, and broadcast by sizes
    of 1 only: no implementation promotes ranks. Under grouped queries the query is `[..., K, G, T, H]` and the key
    `[..., K, 1, S, H]`: no key is repeated.
    """

    query: jax.Array
    key: jax.Array
    value: jax.Array
    score: Score
    mods: tuple[Mod, ...]
    mask: Mask | None
    normalize: Normalizer
    dropout: Dropout | None
    query_positions: jax.Array
    key_positions: jax.Array
    precision: Any
    implementation: Any  # None, a name, or a value with its name and options
    index: jax.Array | None = None
    """int32 `[*lead]`, which leading index this is, where a problem is a part of a larger one: for dropout."""

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Everything that holds arrays."""
        rule = (self.score, self.mods, self.mask, self.normalize, self.dropout)
        return (self.query, self.key, self.value, rule, self.query_positions, self.key_positions, self.index)

    def computed(self) -> Problem:
        """Operands in the dtype of scores and sums."""
        dtype = compute_dtype(self.query, self.key, self.value)
        return self._replace(**{name: getattr(self, name).astype(dtype) for name in ("query", "key", "value")})

    def zero_unused(self, rows: Any, columns: Any) -> Problem:
        """0 in operand rows that no allowed pair needs, so that NaN there goes nowhere; used rows are bool `[..., T]`,
        used columns bool `[..., S]`.
        """
        query, key = self.score.zero_unused(self.query, self.key, rows, columns)
        return self._replace(query=query, key=key, value=zero_rows(self.value, columns))

    @property
    def forbids(self) -> bool:
        """Whether scores and mods may forbid pairs that the mask allows."""
        return self.score.forbids or any(mod.forbids for mod in self.mods)

    @property
    def lead(self) -> tuple[int, ...]:
        """The common leading axes."""
        return jnp.broadcast_shapes(*(x.shape[:-2] for x in (self.query, self.key, self.value)))

    @property
    def score_shape(self) -> tuple[int, ...]:
        """`[*lead, T, S]`."""
        return (*self.lead, self.query.shape[-2], self.value.shape[-2])


class Attended(NamedTuple):
    """Output and differentiable row statistics of one attention call.

    output:    `[..., T, E]` (`attend`) or `[..., T, N, E]` (`attend_heads`), in the query's dtype
    logsumexp: `log sum_s exp(score)` over the allowed keys, `[..., T]` or `[..., T, N]`, at least float32; -inf if none
    max_score: the largest allowed score, same shape; -inf if none
    entropy:   `-sum_s w log w` of the weights in nats, same shape; 0 if none
    """

    output: Float[Array, "*lead T E"]
    logsumexp: Float[Array, "*lead T"]
    max_score: Float[Array, "*lead T"]
    entropy: Float[Array, "*lead T"]
