"""Wrong dropout, implementations, partial results and caches, and the checks of the other public functions."""

from __future__ import annotations

import jax

from jax_attention import Dropout, attention_weights, cache, dot_product_attention, explain, merge_partials
from tests.errors.calls import KV, KVH, QH, B, H, K, N, Q, S, T, ones, plain

RNG = jax.random.key(0)


def overfull_cache():
    """Append 2 rows to a cache that has room for 1."""
    filled = cache.append(cache.create(4, K, H), ones(3, K, H), ones(3, K, H))
    return cache.append(filled, ones(2, K, H), ones(2, K, H))


CASES = {
    "dropout as a float": (
        plain(dropout=0.1),
        TypeError,
        ["dropout: expected Dropout(rng, rate) or None", "float 0.1"],
    ),
    "dropout of everything": (
        lambda: Dropout(RNG, 1.0),
        ValueError,
        ["rate: expected 0 <= rate <= 1 - 2^-32, got 1.0", "None"],
    ),
    "unknown implementation": (
        plain(implementation="flash"),
        ValueError,
        ["implementation: there is no implementation 'flash'", "'reference'", "Leave it None"],
    ),
    "unknown implementation in explain": (
        lambda: explain(Q, KV, KV, implementation="cudnn9"),
        ValueError,
        ["implementation: there is no implementation 'cudnn9'"],
    ),
    "fewer values than keys in attention_weights": (
        lambda: attention_weights(Q, KV, KV[:2]),
        ValueError,
        ["value: expected 5 rows", "got 2"],
    ),
    "two-axis mask for jax.nn's signature": (
        lambda: dot_product_attention(QH, KVH, KVH, mask=ones(B, S, dtype=bool)),
        ValueError,
        ["mask: expected axes [B, N, T, S]", "bool[2,5]", "mask[:, None, None, :]"],
    ),
    "no partials": (merge_partials, ValueError, ["partials: expected at least one pair (output, logsumexp), got none"]),
    "partial without logsumexp": (
        lambda: merge_partials((ones(T, H), ones(T, H))),
        ValueError,
        ["partials[0]: expected logsumexp[...] for output[..., E]", "float32[3,6]"],
    ),
    "cache overflow": (
        overfull_cache,
        ValueError,
        ["key: expected at most 1 more rows, as the cache holds 3 of 4, got 2", "Create a larger cache", "ring=True"],
    ),
    "more rows than a ring has": (
        lambda: cache.append(cache.create(4, K, H, ring=True), ones(5, K, H), ones(5, K, H)),
        ValueError,
        ["key: expected at most 4 rows", "got 5", "append in parts"],
    ),
    "rows for another cache": (
        lambda: cache.append(cache.create(4, K, H), ones(3, N, H), ones(3, N, H)),
        ValueError,
        ["key: expected shape (3, 2, 6)", "float32[4,2,6]", "float32[3,4,6]"],
    ),
}
