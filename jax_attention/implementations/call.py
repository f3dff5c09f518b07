"""One attention call after all checks: operands, the four parts of the rule, positions, and the kind of result."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import compute_dtype, forbid, zero_rows
from jax_attention.core.short_repr import short_repr
from jax_attention.core.struct import UserFunction, array_field, data_field, find_parts, part_field, struct
from jax_attention.dropout import Dropout
from jax_attention.masks import Mask
from jax_attention.mods import Mod
from jax_attention.normalizers import Normalizer
from jax_attention.scores import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class ResultKind(enum.Enum):
    """The kind of result of a call: the output, the weights, or the output with row statistics."""

    OUTPUT = "output"
    WEIGHTS = "weights"
    STATISTICS = "statistics"


@struct
class AttentionCall:
    """One attention call. Heads are batch dimensions like any other.

    Operands, positions and the arrays inside the rule all have the same number of batch dimensions, and broadcast by
    sizes of 1 only: no implementation promotes ranks. Under grouped queries the query is `[..., K, G, T, H]` and the
    key `[..., K, 1, S, H]`: no key is repeated. Every array names its axes, so `map_arrays(fn, call)` slices or pads
    operands and rule alike.
    """

    query: jax.Array = array_field("T", "H")
    key: jax.Array = array_field("S", "H")
    value: jax.Array = array_field("S", "E")
    score: Score = part_field()
    mods: tuple[Mod, ...] = part_field()
    mask: Mask | None = part_field()
    normalize: Normalizer = part_field()
    dropout: Dropout | None = data_field()
    query_positions: jax.Array = array_field("T", layout=True)
    key_positions: jax.Array = array_field("S", layout=True)
    batch_index: jax.Array | None = array_field(default=None)
    """int32 `[*batch]`: the number of each batch entry, where a call is one slice of a larger one; for dropout."""
    precision: Any = None
    given_positions: tuple[str, ...] = ()
    """Names of the positions that the caller passed; the others are 0, 1, 2, …"""
    implementation: Any = None
    """None, a name, or an `Implementation`."""
    result: ResultKind = ResultKind.OUTPUT

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The common batch dimensions of query, key and value."""
        return jnp.broadcast_shapes(*(x.shape[:-2] for x in (self.query, self.key, self.value)))

    @property
    def score_shape(self) -> tuple[int, ...]:
        """`[*batch, T, S]`."""
        return (*self.batch_shape, self.query.shape[-2], self.value.shape[-2])

    @property
    def batch_size(self) -> int:
        """Product of the batch dimensions."""
        return math.prod(self.batch_shape)

    @property
    def pair_positions(self) -> tuple[jax.Array, jax.Array]:
        """Positions that broadcast over the scores: `[..., T, 1]` and `[..., 1, S]`."""
        return jnp.asarray(self.query_positions)[..., :, None], jnp.asarray(self.key_positions)[..., None, :]

    @property
    def rule(self) -> tuple[Score, tuple[Mod, ...], Mask | None, Normalizer]:
        """The four parts."""
        return self.score, self.mods, self.mask, self.normalize

    @property
    def has_function(self) -> bool:
        """Whether a user's function is part of the rule."""
        return bool(find_parts(UserFunction, self.rule))

    @property
    def may_forbid_pairs(self) -> bool:
        """Whether scores and mods may forbid pairs that the mask allows, by a score of -inf."""
        return self.score.may_forbid_pairs or any(mod.may_forbid_pairs for mod in self.mods)

    def replace(self, **changes: Any) -> AttentionCall:
        """The same call with other fields."""
        return dataclasses.replace(self, **changes)

    def modify(self, scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores `[..., t, s]` after all mods, ready to be normalised, and the allowed pairs.

        Scores of forbidden pairs become 0 before a mod sees them: the derivative of that mod at inf or NaN would
        otherwise turn the 0 that comes back into NaN.
        """
        for mod in self.mods:
            scores, where = forbid(scores, where)
            scores = mod(scores, *self.pair_positions)
        return self.normalize.forbid(scores, where)

    def in_compute_dtype(self) -> AttentionCall:
        """The operands in the dtype of scores and sums: at least float32."""
        dtype = compute_dtype(self.query, self.key, self.value)
        return self.replace(**{name: getattr(self, name).astype(dtype) for name in ("query", "key", "value")})

    def in_logarithms(self) -> AttentionCall:
        """The same call by the logarithm of its score and a softmax, if both parts of the rule have such a form.

        Exponentials of features over- and underflow (performer-pytorch#36); the softmax subtracts a maximum first, and
        the factors of queries and keys cancel in its quotient. Mods change the score itself, not its logarithm.
        """
        score, normalize = self.score.logarithm(), self.normalize.of_logarithm()
        if self.mods or score is None or normalize is None:
            return self
        return self.replace(score=score, normalize=normalize)

    def zero_unused(self, rows: Any, columns: Any) -> AttentionCall:
        """Replace operand rows that no allowed pair needs by 0, so that NaN there goes nowhere.

        Used rows are bool `[..., T]`, used columns bool `[..., S]`.
        """
        query, key = self.score.zero_unused(self.query, self.key, rows, columns)
        return self.replace(query=query, key=key, value=zero_rows(self.value, columns))


def with_batch_index(call: AttentionCall) -> AttentionCall:
    """Give each batch entry its global number: dropout bits depend on it."""
    return call.replace(batch_index=jnp.arange(call.batch_size, dtype=jnp.int32).reshape(call.batch_shape))


@short_repr
class AttentionOutput(NamedTuple):
    """Output and differentiable row statistics of one attention call.

    output:    `[..., T, E]` (`attend`) or `[..., T, N, E]` (`attend_heads`), in the query's dtype
    logsumexp: `log sum_s exp(score)` over the allowed keys, `[..., T]` or `[..., T, N]`, at least float32; -inf if none
    max_score: the largest allowed score, same shape; -inf if none
    entropy:   `-sum_s w log w` of the weights in nats, same shape; 0 if none
    """

    output: Float[Array, "*batch T E"]
    logsumexp: Float[Array, "*batch T"]
    max_score: Float[Array, "*batch T"]
    entropy: Float[Array, "*batch T"]
