"""From a public call to an `AttentionCall`: defaults, checks, positions, grouped heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import masks, normalizers, scores
from jax_attention import mods as score_mods
from jax_attention.attention.part_shapes import check_part_shapes
from jax_attention.core.checks import (
    check_batch,
    check_heads,
    check_operand,
    check_positions,
    check_rows,
    check_rule_arrays,
    check_sizes,
    describe_array,
    fail_unless,
)
from jax_attention.core.explicit_axes import share_batch_sharding
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.part_checks import check_part
from jax_attention.core.sizes import index_range
from jax_attention.core.struct import align
from jax_attention.dropout import Dropout
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.call import AttentionCall, ResultKind

if TYPE_CHECKING:
    from jaxtyping import Array, Int


class Options(TypedDict, total=False):
    """The keyword arguments that every attention function shares; documented at `attend`."""

    score: scores.Score | Callable | None
    mods: tuple[score_mods.Mod | Callable, ...]
    mask: masks.Mask | Callable | None
    normalize: normalizers.Normalizer | Callable | None
    dropout: Dropout | None
    query_positions: Int[Array, "*#batch T"] | None
    key_positions: Int[Array, "*#batch S"] | None
    precision: Any
    implementation: str | Implementation | None


class HeadLayout(NamedTuple):
    """The batch dimensions of the operands and the number of query heads N, to give results back in their layout."""

    batch: tuple[int, ...]
    heads: int

    def merge_groups(self, x: jax.Array, tail: int) -> jax.Array:
        """`[..., K, G, *tail]` or `[..., N, *tail] -> [..., N, *tail]`."""
        return x.reshape(*self.batch, self.heads, *x.shape[x.ndim - tail :])

    def heads_last(self, x: jax.Array, tail: int) -> jax.Array:
        """The same with the head axis after the query axis: `[..., T, N]` or `[..., T, N, E]`."""
        return jnp.swapaxes(self.merge_groups(x, tail), -tail, -tail - 1)


def prepare(
    query: Any,
    key: Any,
    value: Any,
    *,
    query_positions: Any = None,
    key_positions: Any = None,
    precision: Any = None,
    implementation: str | Implementation | None = None,
    result: ResultKind = ResultKind.OUTPUT,
    **parts: Any,
) -> AttentionCall:
    """A checked call from operands in the layout of `attend`."""
    query = check_operand("query", query, 2, "[..., T, H]")
    key = check_operand("key", key, 2, "[..., S, H]")
    value = check_operand("value", value, 2, "[..., S, E]")
    rule = check_parts(**parts)
    columns = _columns(rule["score"], key)
    check_rows(key, value, columns, heads=False)
    batch = check_batch({"query": query.shape[:-2], "key": key.shape[:-2], "value": value.shape[:-2]})
    _check_rule(rule, query, key, batch, columns)
    q_pos = _positions("query_positions", query_positions, query.shape[-2], batch)
    k_pos = _positions("key_positions", key_positions, columns, batch)
    query, key, value = share_batch_sharding(*(_expand_to_rank(x, len(batch) + 2) for x in (query, key, value)))
    dtype = compute_dtype(query, key, value)
    call = AttentionCall(
        query,
        key,
        value,
        **{name: align(part, len(batch), dtype) for name, part in rule.items()},
        query_positions=_expand_to_rank(q_pos, len(batch) + 1),
        key_positions=_expand_to_rank(k_pos, len(batch) + 1),
        precision=precision,
        given_positions=_given(query_positions=query_positions, key_positions=key_positions),
        implementation=implementation,
        result=result,
    )
    check_part_shapes(call)
    return call


def prepare_heads(
    query: Any,
    key: Any,
    value: Any,
    *,
    query_positions: Any = None,
    key_positions: Any = None,
    precision: Any = None,
    implementation: str | Implementation | None = None,
    result: ResultKind = ResultKind.OUTPUT,
    **parts: Any,
) -> tuple[AttentionCall, HeadLayout]:
    """A checked call from operands in the layout of `attend_heads`; its batch dimensions end in `N`, or `K, G`."""
    query = check_operand("query", query, 3, "[..., T, N, H]")
    key = check_operand("key", key, 3, "[..., S, K, H]")
    value = check_operand("value", value, 3, "[..., S, K, E]")
    kv_heads, groups = check_heads(query, key, value)
    rule = check_parts(**parts)
    query, key, value_heads = (jnp.swapaxes(x, -2, -3) for x in (query, key, value))
    columns = _columns(rule["score"], key)
    check_rows(jnp.swapaxes(key, -2, -3), value, columns, heads=True)
    batch = check_batch({"query": query.shape[:-3], "key": key.shape[:-3], "value": value_heads.shape[:-3]})
    _check_rule(rule, query, key, (*batch, kv_heads * groups), columns)
    positions = (
        _positions("query_positions", query_positions, query.shape[-2], batch),
        _positions("key_positions", key_positions, columns, batch),
    )
    query, key, value_heads = (_expand_to_rank(x, len(batch) + 3) for x in (query, key, value_heads))
    q_pos, k_pos = (_expand_to_rank(x, len(batch) + 1)[..., None, :] for x in positions)
    if groups > 1:
        query = query.reshape(*query.shape[:-3], kv_heads, groups, *query.shape[-2:])
        key, value_heads = (jnp.expand_dims(x, -3) for x in (key, value_heads))
        q_pos, k_pos = (x[..., None, :] for x in (q_pos, k_pos))
    query, key, value_heads = share_batch_sharding(query, key, value_heads)
    split = (kv_heads, groups) if groups > 1 else None
    dtype = compute_dtype(query, key, value)
    call = AttentionCall(
        query,
        key,
        value_heads,
        **{name: align(part, query.ndim - 2, dtype, split) for name, part in rule.items()},
        query_positions=q_pos,
        key_positions=k_pos,
        precision=precision,
        given_positions=_given(query_positions=query_positions, key_positions=key_positions),
        implementation=implementation,
        result=result,
    )
    check_part_shapes(call)
    return call, HeadLayout(batch, kv_heads * groups)


def _columns(score: scores.Score, key: jax.Array) -> int:
    """S: one column per key, except for scores that pair keys with queries."""
    return score.columns(key) if score.key_per_query else key.shape[-2]


def _expand_to_rank(x: Any, rank: int) -> Any:
    """Insert axes of size 1 in front, up to `rank`; NumPy stays NumPy."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def check_parts(
    score: Any = None, mods: Any = (), mask: Any = None, normalize: Any = None, dropout: Dropout | None = None
) -> dict[str, Any]:
    """The parts of the rule, user functions wrapped, defaults filled in."""
    mods = mods if isinstance(mods, (tuple, list)) else (mods,)
    return {
        "score": scores.scaled_dot() if score is None else _check_score(score),
        "mods": tuple(map(_check_mod, mods)),
        "mask": None if mask is None else _check_mask(mask),
        "normalize": normalizers.softmax() if normalize is None else _check_normalizer(normalize),
        "dropout": None if dropout is None else _check_dropout(dropout),
    }


def _check_score(score: Any) -> scores.Score:
    check_part("score", score, scores.CATALOGUE, "Leave it out for scaled_dot.")
    return scores.as_score(score)


def _check_mod(mod: Any) -> score_mods.Mod:
    check_part("mod", mod, score_mods.CATALOGUE, "mods is a tuple: mods=(mods.alibi(slopes),).")
    return score_mods.as_mod(mod)


def _check_normalizer(normalize: Any) -> normalizers.Normalizer:
    check_part("normalize", normalize, normalizers.CATALOGUE, "Leave it out for softmax.")
    return normalizers.as_normalizer(normalize)


def _check_dropout(dropout: Any) -> Dropout:
    expected = f"dropout: expected Dropout(rng, rate) or None, got {describe_array(dropout)}."
    fail_unless(isinstance(dropout, Dropout), expected, TypeError)
    return dropout


def _check_mask(mask: Any) -> masks.Mask:
    dtype = getattr(mask, "dtype", None)
    fail_unless(
        dtype is None or not jnp.issubdtype(dtype, jnp.floating),
        f"mask: expected a mask, got the float array {describe_array(mask)}. Pass an additive mask as a bias: "
        "mods=(mods.bias(array),).",
        TypeError,
    )
    check_part("mask", mask, masks.CATALOGUE, "Wrap a boolean array (True = may attend): mask=masks.dense(array).")
    return masks.as_mask(mask)


def _check_rule(rule: dict[str, Any], query: jax.Array, key: jax.Array, batch: tuple[int, ...], columns: int) -> None:
    score = rule["score"]
    check_sizes(query, key, score.needs_equal_sizes, score.key_per_query, score)
    features = {"Hq": query.shape[-1], "Hk": key.shape[-1], "Hq+Hk": query.shape[-1] + key.shape[-1]}
    parts = {name: rule[name] for name in ("score", "mods", "mask", "normalize")}
    check_rule_arrays(parts, batch, {"T": query.shape[-2], "S": columns, **features})


def _given(**positions: Any) -> tuple[str, ...]:
    """The names of the positions that are not None."""
    return tuple(name for name, x in positions.items() if x is not None)


def _positions(name: str, positions: Any, count: int, batch: tuple[int, ...]) -> jax.Array | np.ndarray:
    if positions is None:
        return index_range(count)  # known when traced, if T and S are: masks then know which tiles are empty
    return check_positions(name, positions, count, batch)
