"""Cases of the attention functions, caches, positions and all parts of a rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import (
    Blockwise,
    Dense,
    Dropout,
    LinearAttention,
    attend,
    attend_heads,
    attend_step,
    attend_with_stats,
    attend_with_stats_heads,
    attention_weights,
    attention_weights_heads,
    cache,
    dot_product_attention,
    flax_attention_fn,
    masks,
    merge_partials,
    mods,
    normalizers,
    parts,
    positions,
    scores,
)
from tests.strict_modes.modes import Case
from tests.support import cases

B, T, N, K, H = 2, 5, 4, 2, 6
INDEX = np.arange(T, dtype=np.int32)
LENGTHS = np.array([3, 4], np.int32)
RULE = {"mask": masks.causal(), "mods": (mods.soft_cap(5.0),), "query_positions": INDEX}
EXCLUDES = (("debug_infs", "the result is -inf for excluded pairs"),)


def arrays(*shapes: tuple[int, ...]) -> Any:
    """Makes one array of each shape."""
    return lambda: tuple(jnp.ones(shape, jnp.float32) for shape in shapes)


QKV = arrays((B, T, H), (B, T, H), (B, T, 3))
HEADS = arrays((B, T, N, H), (B, T, K, H), (B, T, K, 3))


def call(f: Any, make: Any = QKV, excepted: tuple = (), **options: Any) -> Case:
    return Case(make, lambda x: f(*x, **options), excepted=excepted)


def under(**rule: Any) -> Case:
    """Attention by heads, with statistics and dropout, under a rule."""
    return call(attend_with_stats_heads, HEADS, dropout=Dropout(jax.random.key(0), 0.2), **rule)


FUNCTIONS = {
    "attend": call(attend, **RULE),
    "attend_heads": call(attend_heads, HEADS, **RULE),
    "attend_with_stats": call(attend_with_stats, **RULE),
    "attend_with_stats_heads": call(attend_with_stats_heads, HEADS, **RULE),
    "attention_weights": call(attention_weights, **RULE),
    "attention_weights_heads": call(attention_weights_heads, HEADS, **RULE),
    "attend_step": Case(
        QKV,
        lambda x: attend_step(
            attend_step(None, *x, score=scores.features("relu"))[1], *x, score=scores.features("relu")
        )[0],
    ),
    "dot_product_attention": call(
        dot_product_attention,
        arrays((B, T, N, H), (B, T, K, H), (B, T, K, 3), (1, N, T, T)),
        is_causal=True,
        key_value_seq_lengths=LENGTHS,
        local_window_size=2,
    ),
    "flax_attention_fn": call(
        flax_attention_fn(mask=masks.causal()), arrays((B, T, N, H), (B, T, N, H), (B, T, N, H)), deterministic=True
    ),
    "merge_partials": Case(QKV, lambda x: merge_partials(*[attend_with_stats(*x)[:2]] * 2)),
    "Dropout": under(),
    "Dense": under(implementation=Dense(), mask=masks.causal()),
    "Blockwise": under(implementation=Blockwise(tile=(2, 3)), mask=masks.causal()),
    "LinearAttention": call(
        attend_heads,
        HEADS,
        score=scores.features("elu_plus_one"),
        normalize=normalizers.proportional(),
        mask=masks.causal(),
        implementation=LinearAttention(),
    ),
}


def a_cache() -> cache.KVCache:
    return cache.create(8, K, H, 3, batch=(B,))


def cached(x: tuple) -> jax.Array:
    q, k, v = x
    full = cache.append(a_cache(), k, v)
    mask = masks.causal() & cache.filled()
    at = {"query_positions": INDEX, "key_positions": full.positions}
    return attend_heads(q, full.key, full.value, mask=mask, **at)


CACHE = {
    "cache.create": Case(None, a_cache, "an empty cache"),
    "cache.append": Case(HEADS, cached),
    "cache.filled": Case(HEADS, cached),
    "cache.next_positions": Case(None, lambda: cache.next_positions(a_cache(), 3), "integers"),
}


def of_part(part: str, case: cases.Case) -> Case:
    """Attention under the part of a catalogue, made from random arrays."""

    draw = cases.Draw(np.random.default_rng(0), cases.Shape(T, 7), (B,))
    choice = case.build(draw)[0]
    shapes = [x.array.shape for x in cases.operands(draw, choice if part == "score" else None)]
    return call(attend, arrays(*shapes), **cases.rule_arguments(part, choice))


def name_of(case: cases.Case) -> str:
    factory = getattr(case.factory, "__name__", case.name)
    return case.name if factory in (case.name, "<lambda>") else f"{factory}, {case.name}"


CATALOGUE_PARTS = {
    f"{folder}.{name_of(case)}": of_part(part, case)
    for part, folder in (("score", "scores"), ("mod", "mods"), ("mask", "masks"), ("normalize", "normalizers"))
    for case in cases.PARTS[part]
}


def allowed(q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    return k_pos <= q_pos


FUNCTION_PARTS = {
    "scores.as_score": under(score=scores.as_score(lambda q, k: q @ jnp.swapaxes(k, -1, -2))),
    "mods.as_mod": under(mods=(mods.as_mod(lambda z, q_pos, k_pos: z + 1.0),)),
    "masks.as_mask": under(mask=masks.as_mask(allowed)),
    "normalizers.as_normalizer": under(
        normalize=normalizers.as_normalizer(lambda z, where: jnp.where(where, z, jnp.zeros((), z.dtype)))
    ),
}
PADDING = np.array([[0, 1, 1, 1, 1], [0, 0, 1, 1, 1]], np.int32)
TORCH_FLOATS = np.where(np.tri(T), 0.0, -np.inf).astype(np.float32)
FOREIGN_MASKS = {
    "masks.from_flash_window": under(mask=masks.from_flash_window((2, 0), T, T)),
    "masks.from_huggingface_window": under(mask=masks.from_huggingface_window(3)),
    "masks.from_jax_nn_window": under(mask=masks.from_jax_nn_window((2, 1))),
    "masks.from_huggingface": call(attend_heads, HEADS, **masks.from_huggingface(PADDING)._asdict()),
    "masks.from_torch_mha": call(
        attend_heads, HEADS, **masks.from_torch_mha(TORCH_FLOATS, PADDING == 0, num_heads=N)._asdict()
    ),
    "masks.from_torch_sdpa": call(attend_heads, HEADS, **masks.from_torch_sdpa(TORCH_FLOATS)._asdict()),
    "masks.fully_masked_rows": Case(None, lambda: masks.fully_masked_rows(masks.lengths(LENGTHS), 3, 4), "bools"),
    "masks.And": under(mask=masks.causal() & masks.sliding_window(2)),
    "masks.Or": under(mask=masks.causal() | masks.prefix(2)),
    "masks.Not": under(mask=~masks.dilated(2)),
}


def rotated(scaling: positions.Scaling | None) -> Case:
    return call(lambda x: positions.rotary(scaling=scaling).heads(x, INDEX), arrays((B, T, N, H)))


POSITIONS = {
    "positions.rotary": rotated(None),
    "positions.linear_scaling": rotated(positions.linear_scaling(2.0)),
    "positions.dynamic_scaling": rotated(positions.dynamic_scaling(2.0, 2)),
    "positions.llama3_scaling": rotated(positions.llama3_scaling(original_length=16)),
    "positions.yarn_scaling": rotated(positions.yarn_scaling(2.0, 16)),
    "positions.rotary_tables": call(
        lambda cos, sin, x: positions.rotary_tables(cos, sin).heads(x, INDEX), arrays((T, 3), (T, 3), (B, T, N, H))
    ),
    "positions.learned": call(lambda table: positions.learned(table, INDEX), arrays((T, H))),
    "positions.sinusoidal": Case(None, lambda: positions.sinusoidal(INDEX, H), "made from integers"),
    "positions.alibi_slopes": Case(None, lambda: positions.alibi_slopes(6), "made from a number of heads"),
    "positions.t5_buckets": Case(None, lambda: positions.t5_buckets(INDEX[:, None] - INDEX), "integers"),
}
WHERE = np.tri(3, 4, 1, bool)
PARTS = {
    "parts.finite_or_zero": call(parts.finite_or_zero, arrays((3, 4))),
    "parts.forbid": call(lambda x: parts.forbid(x, WHERE), arrays((3, 4)), EXCLUDES),
    "parts.per_tile": call(parts.per_tile, arrays((3,))),
    "parts.row_max": call(parts.row_max, arrays((3, 4))),
    "parts.safe_norm": call(parts.safe_norm, arrays((3, 4))),
    "parts.take_last": call(lambda x: parts.take_last(x, INDEX[:3, None] + INDEX[:4]), arrays((3, 8))),
}

CASES = FUNCTIONS | CACHE | CATALOGUE_PARTS | FUNCTION_PARTS | FOREIGN_MASKS | POSITIONS | PARTS
