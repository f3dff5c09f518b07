"""O(T) time and memory where the rule allows it: if the score factors into query and key features and the normalizer is
linear, the sum over keys does not depend on the query.

    products:      sum_s (q_t . k_s) v_s = q_t . (sum_s k_s v_s^T)                       a sum of F x E numbers
    log_features:  sum_s (exp(a_t) . exp(b_s)) v_s = exp(a_t) . (sum_s exp(b_s) v_s^T)   relative to the largest b

Under a causal mask the sums run along the keys, chunk by chunk. No weight is ever formed, so there are neither weights
nor statistics; which rules qualify is in `eligible.py`.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import ClassVar

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_int
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.call import AttentionCall
from jax_attention.implementations.linear_attention import log_features, products
from jax_attention.implementations.linear_attention.causal_extent import causal_extent
from jax_attention.implementations.linear_attention.eligible import why_not
from jax_attention.implementations.linear_attention.products import State
from jax_attention.normalizers import Softmax


@dataclasses.dataclass(frozen=True)
class LinearAttention(Implementation):
    """Linear attention, `implementation="linear_attention"`: sums over keys first, O(T) time, every derivative.

    Args:
        chunk: rows per step under a causal mask, or None to choose. Work within a chunk is quadratic in it.

    Returns:
        An implementation, for the argument `implementation` of all attention functions.

    Raises:
        TypeError, ValueError: if `chunk` is not a positive integer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import LinearAttention, attend, masks, normalizers, scores
        >>> x, rule = jnp.ones((5, 2)), {"score": scores.features("relu"), "normalize": normalizers.proportional()}
        >>> attend(x, x, x, **rule, mask=masks.causal(), implementation=LinearAttention(chunk=2)).shape
        (5, 2)

    Reference:
        Katharopoulos et al. (2020), "Transformers are RNNs".
    """

    name: ClassVar[str] = "linear_attention"
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None:
            check_int("chunk", self.chunk, 1, "It is the number of rows of one step.")

    def why_not(self, call: AttentionCall) -> str | None:
        return why_not(call)

    def attend(self, call: AttentionCall) -> jax.Array:
        return attend_from(call, None, self.chunk)[0]


def attend_from(call: AttentionCall, state: State | None, chunk: int | None = None) -> tuple[jax.Array, State | None]:
    """The output, and the sums over all keys. `state` holds the sums over earlier keys, which every query sees."""
    shape = (*call.score_shape[:-1], call.value.shape[-1])
    if 0 in call.score_shape:
        return jnp.zeros(shape, call.query.dtype), state
    extent = causal_extent(call)
    operands = call.in_compute_dtype().in_logarithms()
    if call.mask is not None:
        operands = operands.zero_unused(extent.row_used(), extent.column_used())
    output, state = _form(operands).attend(operands, extent, state, chunk)
    if call.mask is not None:
        output = jnp.where(extent.row_used()[..., None], output, 0)
    return jnp.broadcast_to(output, shape).astype(call.query.dtype), state


def empty_state(call: AttentionCall) -> State:
    """The state before any key, of a rule whose scores are products."""
    call = call.in_compute_dtype().in_logarithms()
    form = _form(call)
    return form.empty_state(*jax.eval_shape(lambda: (form.features(call)[1], products.append_ones(call.value))))


def _form(call: AttentionCall) -> ModuleType:
    """The module that evaluates a call whose exponential features are in logarithms."""
    return log_features if isinstance(call.normalize, Softmax) else products
