"""From a public call to a `Problem`: defaults, checks, positions, grouped heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import masks, normalizers, scores
from jax_attention import mods as mod_values
from jax_attention.dropout import Dropout
from jax_attention.ground.checks import (
    check_heads,
    check_lead,
    check_operand,
    check_part,
    check_positions,
    check_rows,
    check_rule_arrays,
    check_sizes,
    describe_array,
    fail_unless,
)
from jax_attention.ground.values import align
from jax_attention.implementations.blockwise.plan import Blockwise
from jax_attention.implementations.problem import Problem

if TYPE_CHECKING:
    from jaxtyping import Array, Int


class Options(TypedDict, total=False):
    """The keyword arguments that every attention function shares; documented at `attend`."""

    score: scores.Score | Callable
    mods: tuple[mod_values.Mod | Callable, ...]
    mask: masks.Mask | Callable | None
    normalize: normalizers.Normalizer | Callable
    dropout: Dropout | None
    query_positions: Int[Array, "*#lead T"] | None
    key_positions: Int[Array, "*#lead S"] | None
    precision: Any
    implementation: str | Blockwise | None


class HeadLayout(NamedTuple):
    """How to give results back: the batch axes and the number of query heads N."""

    batch: tuple[int, ...]
    heads: int

    def merged(self, x: jax.Array, tail: int) -> jax.Array:
        """`[..., K, G, *tail]` or `[..., N, *tail] -> [..., N, *tail]`."""
        return x.reshape(*self.batch, self.heads, *x.shape[x.ndim - tail :])

    def heads_last(self, x: jax.Array, tail: int) -> jax.Array:
        """The same, with the head axis behind the query axis: `[..., T, N]` or `[..., T, N, E]`."""
        return jnp.swapaxes(self.merged(x, tail), -tail, -tail - 1)


def prepare(
    query: Any,
    key: Any,
    value: Any,
    *,
    query_positions: Any = None,
    key_positions: Any = None,
    precision: Any = None,
    implementation: str | Blockwise | None = None,
    **parts: Any,
) -> Problem:
    """A checked problem from operands in the layout of `attend`."""
    query = check_operand("query", query, 2, "[..., T, H]")
    key = check_operand("key", key, 2, "[..., S, H]")
    value = check_operand("value", value, 2, "[..., S, E]")
    rule = _rule(**parts)
    columns = rule["score"].columns(key)
    check_rows(key, value, columns, heads=False)
    lead = check_lead({"query": query.shape[:-2], "key": key.shape[:-2], "value": value.shape[:-2]})
    _check_rule(rule, query, key, lead, columns)
    rank = len(lead)
    return Problem(
        *(_at_rank(x, rank + 2) for x in (query, key, value)),
        **{name: align(part, rank) for name, part in rule.items()},
        query_positions=_at_rank(_positions("query_positions", query_positions, query.shape[-2], lead), rank + 1),
        key_positions=_at_rank(_positions("key_positions", key_positions, columns, lead), rank + 1),
        precision=precision,
        implementation=implementation,
    )


def prepare_heads(
    query: Any,
    key: Any,
    value: Any,
    *,
    query_positions: Any = None,
    key_positions: Any = None,
    precision: Any = None,
    implementation: str | Blockwise | None = None,
    **parts: Any,
) -> tuple[Problem, HeadLayout]:
    """A checked problem from operands in the layout of `attend_heads`; its leading axes end in `N`, or `K, G`."""
    query = check_operand("query", query, 3, "[..., T, N, H]")
    key = check_operand("key", key, 3, "[..., S, K, H]")
    value = check_operand("value", value, 3, "[..., S, K, E]")
    kv_heads, groups = check_heads(query, key, value)
    rule = _rule(**parts)
    query, key, rows = (jnp.swapaxes(x, -2, -3) for x in (query, key, value))
    columns = rule["score"].columns(key)
    check_rows(jnp.swapaxes(key, -2, -3), value, columns, heads=True)
    batch = check_lead({"query": query.shape[:-3], "key": key.shape[:-3], "value": rows.shape[:-3]})
    _check_rule(rule, query, key, (*batch, kv_heads * groups), columns)
    query_positions = _positions("query_positions", query_positions, query.shape[-2], batch)
    key_positions = _positions("key_positions", key_positions, columns, batch)
    query, key, rows = (_at_rank(x, len(batch) + 3) for x in (query, key, rows))
    query_positions, key_positions = (
        _at_rank(x, len(batch) + 1)[..., None, :] for x in (query_positions, key_positions)
    )
    if groups > 1:
        query = query.reshape(*query.shape[:-3], kv_heads, groups, *query.shape[-2:])
        key, rows = (jnp.expand_dims(x, -3) for x in (key, rows))
        query_positions, key_positions = (x[..., None, :] for x in (query_positions, key_positions))
    regroup = (kv_heads, groups) if groups > 1 else None
    problem = Problem(
        query,
        key,
        rows,
        **{name: align(part, query.ndim - 2, regroup) for name, part in rule.items()},
        query_positions=query_positions,
        key_positions=key_positions,
        precision=precision,
        implementation=implementation,
    )
    return problem, HeadLayout(batch, kv_heads * groups)


def _at_rank(x: jax.Array, rank: int) -> jax.Array:
    """Axes of size 1 in front, up to `rank`."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def _rule(
    score: Any = None, mods: Any = (), mask: Any = None, normalize: Any = None, dropout: Dropout | None = None
) -> dict[str, Any]:
    """The parts of the rule as values."""
    score = scores.scaled_dot() if score is None else score
    normalize = normalizers.softmax() if normalize is None else normalize
    check_part("score", score, scores.CATALOGUE, "Leave it out for scaled_dot.")
    check_part("normalize", normalize, normalizers.CATALOGUE, "Leave it out for softmax.")
    mods = mods if isinstance(mods, (tuple, list)) else (mods,)
    for mod in mods:
        check_part("mod", mod, mod_values.CATALOGUE, "mods is a tuple: mods=(mods.alibi(slopes),).")
    if mask is not None:
        _check_mask(mask)
    fail_unless(
        dropout is None or isinstance(dropout, Dropout),
        f"dropout: expected Dropout(rng, rate) or None, got {describe_array(dropout)}.",
        TypeError,
    )
    return {
        "score": scores.as_score(score),
        "mods": tuple(mod_values.as_mod(mod) for mod in mods),
        "mask": None if mask is None else masks.as_mask(mask),
        "normalize": normalizers.as_normalizer(normalize),
        "dropout": dropout,
    }


def _check_mask(mask: Any) -> None:
    kind = getattr(mask, "dtype", None)
    fail_unless(
        kind is None or not jnp.issubdtype(kind, jnp.floating),
        f"mask: expected a mask value, got the float array {describe_array(mask)}. Pass additive values as a bias: "
        "mods=(mods.bias(array),).",
        TypeError,
    )
    check_part("mask", mask, masks.CATALOGUE, "Wrap a boolean array (True = may attend): mask=masks.dense(array).")


def _check_rule(rule: dict[str, Any], query: jax.Array, key: jax.Array, lead: tuple[int, ...], columns: int) -> None:
    score = rule["score"]
    check_sizes(query, key, score.same_size, score.paired, score)
    features = {"Hq": query.shape[-1], "Hk": key.shape[-1], "Hq+Hk": query.shape[-1] + key.shape[-1]}
    parts = {name: rule[name] for name in ("score", "mods", "mask", "normalize")}
    check_rule_arrays(parts, lead, {"T": query.shape[-2], "S": columns, **features})


def _positions(name: str, positions: Any, count: int, lead: tuple[int, ...]) -> jax.Array:
    if positions is None:
        return np.arange(count, dtype=np.int32)  # known when traced: masks then know which tiles are empty
    return check_positions(name, positions, count, lead)
