"""What users write, for the type checker: `make test` requires that it finds no error here.

`assert_type` states what the checker infers, and `pyright: ignore` with a rule states an error that it must find: the
checker reports an ignore that is not needed.
"""

from __future__ import annotations

from typing import assert_type

import jax
import jax.numpy as jnp

import jax_attention as ja
from jax_attention import Dropout, cache, masks, mods, normalizers, positions, scores


def calls(rng: jax.Array) -> None:
    """Every public function once, with the kinds of arguments that it takes."""
    x, heads = jnp.ones((2, 5, 8)), jnp.ones((2, 5, 4, 8))
    mask = masks.causal() & masks.sliding_window(3) | masks.prefix(1)
    assert_type(mask, masks.Or)
    assert_type(~masks.causal(), masks.Not)
    output = ja.attend(x, x, x, mask=mask, score=scores.dot(), normalize=normalizers.sparsemax())
    assert_type(output, jax.Array)
    assert_type(ja.attend_heads(heads, heads, heads, mods=(mods.soft_cap(30.0), mods.alibi(0.5))), jax.Array)
    ja.attend(x, x, x, score=lambda q, k: q @ k.mT, mask=lambda q, k: q >= k, mods=(lambda z, q, k: z + 1,))
    ja.attend(x, x, x, dropout=Dropout(rng, 0.1), query_positions=jnp.arange(5), precision="highest")
    for implementation in (ja.Dense(), ja.LinearAttention(chunk=8), ja.Blockwise(tile=(8, 8)), ja.Cudnn(), "blockwise"):
        ja.attend(x, x, x, implementation=implementation)
    assert_type(ja.attention_weights(x, x, x), jax.Array)
    stats = ja.attend_with_stats(x, x, x)
    assert_type(stats, ja.AttentionOutput)
    assert_type(stats.logsumexp, jax.Array)
    assert_type(ja.merge_partials(stats[:2], stats[:2]).output, jax.Array)
    output, state = ja.attend_step(None, x, x, x, score=scores.features("relu"))
    assert_type(state, ja.FeatureState)
    assert_type(ja.explain(x, x, x).chosen, str)
    assert_type(positions.rotary(base=500000.0).heads(heads, jnp.arange(5)), jax.Array)
    kv = cache.append(cache.create(8, kv_heads=4, head_size=8, batch=(2,)), heads, heads)
    ja.attend_heads(heads, kv.key, kv.value, mask=masks.causal(), key_positions=kv.positions)


def errors(x: jax.Array) -> None:
    """Mistakes that the checker finds before the program runs."""
    ja.attend(x, x, x, mask=3)  # pyright: ignore[reportArgumentType]
    ja.attend(x, x, x, masks=masks.causal())  # pyright: ignore[reportCallIssue]
    ja.attend_heads(x, x, x, implementation=7)  # pyright: ignore[reportArgumentType]
    ja.Blockwise(tiles=(8, 8))  # pyright: ignore[reportCallIssue]
    print(ja.attend(x, x, x).logsumexp)  # pyright: ignore[reportAttributeAccessIssue]
