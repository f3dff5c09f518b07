"""Wrong queries, keys and values: dtypes, ranks, layouts and sizes."""

from __future__ import annotations

import numpy as np

from jax_attention import attend, attend_heads
from tests.errors.calls import KV, KVH, QH, B, H, K, N, Q, S, T, heads, ones, plain

CASES = {
    "integer query": (
        lambda: attend(ones(T, H, dtype=np.int32), KV, KV),
        TypeError,
        ["query: expected a floating-point array", "[..., T, H]", "int32[3,6]", "query.astype(jnp.float32)"],
    ),
    "query is a number": (
        lambda: attend(1.0, KV, KV),
        TypeError,
        ["query: expected an array [..., T, H]", "float 1.0"],
    ),
    "rank too low": (lambda: attend(Q[0], KV, KV), ValueError, ["query: expected [..., T, H]", "2 axes", "float32[6]"]),
    "rank too low for heads": (
        lambda: attend_heads(Q, KV, KV),
        ValueError,
        ["query: expected [..., T, N, H]", "3 axes", "float32[3,6]", "missing axes"],
    ),
    "complex query": (lambda: attend(ones(T, H, dtype=np.complex64), KV, KV), TypeError, ["query:", "complex64[3,6]"]),
    "keys and values disagree": (
        lambda: attend(Q, KV, KV[:-1]),
        ValueError,
        [
            "value: expected 5 rows",
            "as many as there are keys",
            "got 4",
            "float32[4,6]",
            "Wrong layout?",
            "attend_heads",
        ],
    ),
    "the layout of heads given to attend": (
        lambda: attend(QH, ones(B, S, K, H), ones(B, S, 1, H)),
        ValueError,
        ["value: expected 2 rows", "attend reads keys as [..., S, H]", "[B, S, K, H] use attend_heads"],
    ),
    "heads first given to attend_heads": (
        lambda: attend_heads(ones(B, N, T, H), ones(B, N, S, H), ones(B, N, S, H)),
        ValueError,
        ["query: expected a number of heads N", "multiple of the 5 key heads", "N = 3", "swap axes -2 and -3"],
    ),
    "heads first, lengths disagree": (
        lambda: attend_heads(ones(B, T, N, H), ones(B, K, S, H).swapaxes(1, 2), ones(B, S + 1, K, H)),
        ValueError,
        ["value: expected 5 rows", "got 6", "attend_heads reads keys as [..., S, K, H]", "swap axes -2 and -3"],
    ),
    "heads not a multiple": (
        lambda: attend_heads(ones(B, T, 3, H), KVH, KVH),
        ValueError,
        ["query: expected a number of heads N that is a multiple of the 2 key heads K", "N = 3", "float32[2,3,3,6]"],
    ),
    "key and value heads differ": (
        lambda: attend_heads(QH, KVH, ones(B, S, 1, H)),
        ValueError,
        ["value: expected as many heads as key (2), got 1", "float32[2,5,1,6]"],
    ),
    "batch dimensions": (
        lambda: attend(ones(2, T, H), ones(3, S, H), ones(3, S, H)),
        ValueError,
        [
            "query, key, value: expected batch dimensions that broadcast",
            "query (2,)",
            "key (3,)",
            "axes of size 1",
        ],
    ),
    "head sizes": (
        lambda: attend(Q, ones(S, H + 1), KV),
        ValueError,
        ["key: expected head size 6 as in query", "scaled_dot()", "got 7", "scores.general"],
    ),
    "unknown keyword": (plain(is_causal=True), TypeError, ["unexpected keyword argument", "is_causal"]),
    "unknown keyword under heads": (heads(scale=2.0), TypeError, ["unexpected keyword argument", "scale", "expected"]),
}
