"""Wrong masks, and lengths, segment ids and slopes that would broadcast along another axis than meant."""

from __future__ import annotations

import jax
import numpy as np

from jax_attention import attend_heads, masks, mods
from tests.errors.calls import B, H, N, S, T, heads, ones, plain


def per_sequence(batch: int):
    """A call with lengths `[B]` for `[B, T, N, H]`: with B = N they would be read as one length per head."""
    return lambda: attend_heads(
        ones(batch, T, N, H), ones(batch, S, N, H), ones(batch, S, N, H), mask=masks.lengths(np.arange(batch) + 1)
    )


CASES = {
    "float mask": (
        plain(mask=ones(T, S)),
        TypeError,
        ["mask: expected a mask, got the float array", "float32[3,5]", "Pass an additive mask as a bias", "mods.bias"],
    ),
    "bool array as mask": (
        plain(mask=ones(T, S, dtype=bool)),
        TypeError,
        ["mask: expected a part from jax_attention.masks", "bool[3,5]", "masks.dense(array)"],
    ),
    "list as a mask": (
        lambda: masks.as_mask([True, False]),
        TypeError,
        ["mask: expected a part", "list", "masks.dense(array)"],
    ),
    "padding mask under heads": (
        heads(mask=masks.dense(ones(B, S, dtype=bool))),
        ValueError,
        ["mask.array: expected axis T to have size 3", "bool[2,5]", "padding mask", "mask[:, None, None, :]"],
    ),
    "dense of float": (
        lambda: masks.dense(ones(T, S)),
        TypeError,
        ["array: expected bool (True = may attend)", "float32", "mods.bias(array)", "array > 0"],
    ),
    "dense of integers": (
        lambda: masks.dense(ones(T, S, dtype=np.int32)),
        TypeError,
        ["array: expected bool values", "int32[3,5]", "array != 0"],
    ),
    "dense of a vector": (
        lambda: masks.dense(ones(S, dtype=bool)),
        ValueError,
        ["array: expected an array [..., T, S]", "2 axes", "bool[5]"],
    ),
    "lengths per batch where B = N": (
        per_sequence(N),
        ValueError,
        ["mask.key_lengths: expected no batch dimension or all", "(4, 4)", "int32[4]", "[:, None]"],
    ),
    "lengths per batch where B != N": (
        per_sequence(3),
        ValueError,
        ["mask.key_lengths: expected no batch dimension or all", "(3, 4)", "int32[3]", "[:, None]"],
    ),
    "segment ids per batch under heads": (
        heads(mask=masks.segments(ones(B, T, dtype=np.int32), ones(B, S, dtype=np.int32))),
        ValueError,
        ["mask.query_ids: expected no batch dimension or all", "int32[2,3]", "[:, None, :]"],
    ),
    "one slope per batch element": (
        heads(mods=mods.alibi(ones(B))),
        ValueError,
        ["mods[0].slopes: expected batch dimensions that broadcast", "(2, 4)", "float32[2]", "[:, None]"],
    ),
    "no lengths": (masks.lengths, ValueError, ["key_lengths, query_lengths: expected at least one", "None for both"]),
    "float lengths": (
        lambda: masks.lengths(2.0),
        TypeError,
        ["key_lengths: expected an integer or an array of integers", "float 2.0"],
    ),
    "length beyond 32 bits": (
        lambda: masks.lengths(2**40),
        ValueError,
        ["key_lengths: expected integers that fit int32", "got 1099511627776"],
    ),
    "traced causal offset": (
        lambda: jax.jit(masks.causal)(1),
        TypeError,
        ["offset: expected a Python int", "static under jit", "query_positions="],
    ),
    "window of 0": (
        lambda: masks.sliding_window(0),
        ValueError,
        ["left: expected an int >= 1, got 0", "own included", "None means unlimited"],
    ),
    "offset beyond 32 bits": (
        lambda: masks.causal(2**31 - 10),
        ValueError,
        ["offset: expected less than 2**28", "got 2147483638", "query_positions="],
    ),
    "offset far back": (lambda: masks.sliding_window(4, offset=-(2**28)), ValueError, ["offset: expected less than"]),
    "window meant as unlimited": (
        lambda: masks.sliding_window(10**9),
        ValueError,
        ["left: expected less than 2**28", "got 1000000000", "None means unlimited"],
    ),
    "mask function that returns floats": (
        plain(mask=lambda q, k: (q - k).astype(np.float32)),
        TypeError,
        ["mask <lambda>: expected the function to return bool", "float32[3,5]", "mods.bias(array)"],
    ),
    "mask for another length": (
        plain(mask=masks.dense(ones(T, S + 1, dtype=bool))),
        ValueError,
        ["mask.array: expected axis S to have size 5", "bool[3,6]", "[..., T, S]"],
    ),
}
