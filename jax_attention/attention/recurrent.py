"""The recurrent form of linear attention: a state of fixed size instead of a cache of keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_attention import masks, normalizers
from jax_attention.attention.prepare import prepare
from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.numerics import matmul_precision
from jax_attention.core.short_repr import short_repr
from jax_attention.implementations import linear_attention
from jax_attention.implementations.call import AttentionCall
from jax_attention.normalizers import Normalizer
from jax_attention.scores import Score

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@short_repr
class FeatureState(NamedTuple):
    """Sums over the keys so far: `values = sum phi(k) v^T`, `total = sum phi(k)`, and their `count`.

    log_scale: None, or the largest `log phi(k)` of each feature, if these are exponentials: the sums are then
        `exp(log_scale)` times `values` and `total`; -inf before the first key
    """

    values: Float[Array, "*batch F E"]
    total: Float[Array, "*batch F"]
    count: Int[Array, ""]
    log_scale: Float[Array, "*batch F"] | None = None


def attend_step(
    state: FeatureState | None,
    query: Float[Array, "*#batch T H"],
    key: Float[Array, "*#batch T Hk"],
    value: Float[Array, "*#batch T E"],
    *,
    score: Score | Callable,
    normalize: Normalizer | None = None,
    precision: Any = None,
) -> tuple[Float[Array, "*batch T E"], FeatureState]:
    """Causal linear attention over T new rows and all earlier ones, whose sums are in the state.

        values_t = values_{t-1} + phi(k_t) v_t^T,        total_t = total_{t-1} + phi(k_t)
        output_t = values_t^T phi(q_t) / (total_t . phi(q_t))                             under `proportional()`

    The outputs are those of `attend(..., mask=masks.causal())` over all rows at once, however the rows are cut into
    steps: prefill and decoding are one call. Memory and time of a step do not depend on how many rows came before.

    Args:
        state: the state that the previous step returned; None before the first.
        query: `[..., T, H]`, as in `attend`: heads are batch dimensions. T may be 0: `attend_step(None, q[:0], k[:0],
            v[:0], ...)[1]` is the empty state, for a `lax.scan`.
        key: `[..., T, H]`, one for every query; batch dimensions of size 1 are shared (grouped queries).
        value: `[..., T, E]`.
        score: one whose scores are products of rows: `features`, `random_features`, `dot`, …
        normalize: `proportional()` (if None), `linear()` or `uniform()`.
        precision: as in `attend`.

    Returns:
        The output `[..., T, E]` in the dtype of `query`, and the state after these rows, in at least float32.

    Raises:
        ValueError: if the rule has no state of fixed size, or the state belongs to another rule or other operands.
        TypeError: if `state` is not a `FeatureState`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import attend_step, scores
        >>> x, rule = jnp.array([[1., 0.], [0., 1.], [1., 1.]]), scores.features("relu")
        >>> prompt, state = attend_step(None, x[:2], x[:2], x[:2], score=rule)
        >>> output, state = attend_step(state, x[2:], x[2:], x[2:], score=rule)
        >>> output
        Array([[0.75, 0.75]], dtype=float32)
        >>> state.total, state.count
        (Array([2., 2.], dtype=float32), Array(3, dtype=int32))

    Reference:
        Katharopoulos et al. (2020), "Transformers are RNNs", eq. 16 to 20.
    """
    normalize = normalizers.proportional() if normalize is None else normalize
    rule = {"score": score, "normalize": normalize, "mask": masks.causal(), "precision": precision}
    call = prepare(query, key, value, **rule)
    _check_rule(call)
    before = linear_attention.empty_state(call) if state is None else _read(state, call)
    with matmul_precision(precision):
        output, after = linear_attention.attend_from(call, before)
    assert after is not None  # given a state, `attend_from` returns one
    log_scale = None if after.largest is None else after.largest[..., 0, :]
    return output, FeatureState(
        after.sums[..., :-1], after.sums[..., -1], jnp.asarray(after.count, jnp.int32), log_scale
    )


def _check_rule(call: AttentionCall) -> None:
    reason = linear_attention.LinearAttention().why_not(call)
    if isinstance(call.normalize, normalizers.Softmax):
        reason = f"normalize: expected proportional, linear or uniform, got {call.normalize!r}"
    fail_unless(reason is None, f"{reason}. Other rules decode with a cache: jax_attention.cache and attend_heads.")
    rows, columns = call.score_shape[-2:]
    fail_unless(
        rows == columns,
        f"key: expected one row for each of the {rows} queries, got {columns}. A step appends one key per query.",
    )


def _read(state: FeatureState, call: AttentionCall) -> linear_attention.State:
    """The state as the implementation keeps it."""
    fail_unless(
        isinstance(state, FeatureState),
        f"state: expected a FeatureState, as attend_step returns it, or None, got {describe_array(state)}.",
        TypeError,
    )
    empty = linear_attention.empty_state(call)
    *batch, features, size = empty.sums.shape
    shapes = tuple(jnp.shape(x) for x in state[:3])
    expected = ((*batch, features, size - 1), (*batch, features), ())
    fail_unless(
        shapes == expected,
        f"state: expected values, total and count of shapes {expected} for this score and these operands, got "
        f"{shapes}. Begin with None, and keep score, heads and batch from step to step.",
    )
    sums = jnp.concatenate([state.values, state.total[..., None]], axis=-1)
    return empty._replace(
        sums=sums, count=jax.lax.convert_element_type(state.count, jnp.int32), largest=_largest(state, empty)
    )


def _largest(state: FeatureState, empty: linear_attention.State) -> jax.Array | None:
    """The largest logarithms, `[..., 1, F]`. A state without `log_scale` (version 0.1) holds the sums themselves."""
    if empty.largest is None:
        fail_unless(
            state.log_scale is None,
            f"state: expected no log_scale for this rule, got {describe_array(state.log_scale)}. Begin with None, and "
            "keep the rule from step to step.",
        )
        return None
    if state.log_scale is None:
        return jnp.where(state.total > 0, 0, -jnp.inf).astype(empty.largest.dtype)[..., None, :]
    fail_unless(
        jnp.shape(state.log_scale) == jnp.shape(state.total),
        f"state: expected log_scale of shape {jnp.shape(state.total)}, one for each entry of total, got "
        f"{describe_array(state.log_scale)}. Begin with None, and keep score, heads and batch from step to step.",
    )
    return state.log_scale[..., None, :]
