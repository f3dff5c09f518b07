"""Wrong scores, mods, normalizers and positions, and factories in the place of parts."""

from __future__ import annotations

import numpy as np

from jax_attention import attend, masks, mods, normalizers, positions, scores
from tests.errors.calls import KV, B, H, N, Q, S, T, heads, ones, plain

CASES = {
    "score factory": (
        plain(score=scores.dot),
        TypeError,
        ["score: expected a part", "the factory dot", "scores.dot(...)"],
    ),
    "mask factory": (plain(mask=masks.causal), TypeError, ["mask: expected a part", "masks.causal(...)"]),
    "mod factory": (plain(mods=(mods.alibi,)), TypeError, ["mod: expected a part", "mods.alibi(...)"]),
    "normalizer factory": (
        plain(normalize=normalizers.softmax),
        TypeError,
        ["normalize: expected a part", "normalizers.softmax(...)"],
    ),
    "score by name": (plain(score="dot"), TypeError, ["score: expected a part from jax_attention.scores", "str 'dot'"]),
    "normalizer by name": (
        plain(normalize="softmax"),
        TypeError,
        ["normalize:", "jax_attention.normalizers", "softmax'"],
    ),
    "bias as an array": (
        plain(mods=(ones(T, S),)),
        TypeError,
        ["mod: expected a part from jax_attention.mods", "float32[3,5]", "mods is a tuple"],
    ),
    "bool bias": (
        lambda: mods.bias(ones(T, S, dtype=bool)),
        TypeError,
        ["array: expected additive float values", "bool", "mask=masks.dense(array)"],
    ),
    "negative cap": (lambda: mods.soft_cap(-1.0), ValueError, ["cap: expected a positive number, got -1", "Leave"]),
    "sinks twice": (
        lambda: normalizers.softmax(sinks=1.0, plus_one=True),
        ValueError,
        ["sinks, plus_one: expected at most one", "got both", "sinks=0.0"],
    ),
    "mod of a wrong shape": (
        plain(mods=(lambda z, q, k: z[..., :1],)),
        ValueError,
        [
            "mod <lambda>: expected the function to return shape (3, 5)",
            "float32[3,1]",
            "let arrays it closes over broadcast",
        ],
    ),
    "score of a wrong shape": (
        plain(score=lambda q, k: k @ q.T),
        ValueError,
        ["score <lambda>: expected the function to return shape (3, 5)", "float32[5,3]"],
    ),
    "hidden sizes disagree": (
        lambda: scores.additive(ones(H, 8), ones(H, 7)),
        ValueError,
        ["key_weight: expected axis A", "size 8", "float32[6,7]"],
    ),
    "additive for other features": (
        plain(score=scores.additive(ones(H + 1, 8), ones(H, 8))),
        ValueError,
        ["score.query_weight: expected axis Hq to have size 6", "float32[7,8]"],
    ),
    "location pairs rows": (
        lambda: attend(Q, KV, KV, score=scores.location(ones(2 * H, S))),
        ValueError,
        ["key: expected 3 rows, one per query row", "location(", "got 5", "value has the S rows"],
    ),
    "location with other values": (
        lambda: attend(Q, Q, ones(S + 1, H), score=scores.location(ones(2 * H, S))),
        ValueError,
        ["value: expected 5 rows", "got 6"],
    ),
    # Positions
    "positions of a wrong length": (
        plain(query_positions=np.arange(T + 1)),
        ValueError,
        ["query_positions: expected one position per row, [..., 3]", "int32[4]"],
    ),
    "float positions": (
        plain(key_positions=np.arange(S) / 2),
        TypeError,
        ["key_positions: expected integers", "float", "astype"],
    ),
    "positions with a head axis": (
        heads(query_positions=ones(B, N, T, dtype=np.int32)),
        ValueError,
        ["query_positions: expected batch dimensions that broadcast against (2,)", "int32[2,4,3]"],
    ),
    "odd rotary size": (
        lambda: positions.rotary()(ones(T, 5), np.arange(T)),
        ValueError,
        ["expected an even number, got 5", "pairs"],
    ),
    "unknown rotary style": (
        lambda: positions.rotary(style="neox"),
        ValueError,
        ['style: expected "half" or "interleaved"', "'neox'"],
    ),
    "odd sinusoid": (
        lambda: positions.sinusoidal(np.arange(T), 5),
        ValueError,
        ["size: expected an even number, got 5"],
    ),
}
