"""Wrong calls, and what the messages say: the argument, what was expected, what came, and the cure.

The table closes the complaints of equinox#463, flax#4505 ("cannot make sense of this error"), jax#35916 (a layout that
was silently wrong), x-transformers#164 and pytorch#120668 (polarity and shape of masks).
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Dropout,
    attend,
    attend_heads,
    attention_weights,
    cache,
    dot_product_attention,
    explain,
    masks,
    merge_partials,
    mods,
    normalizers,
    positions,
    scores,
)

B, T, S, N, K, H = 2, 3, 5, 4, 2, 6
RNG = jax.random.key(0)


def ones(*shape: int, dtype=np.float32):
    return np.ones(shape, dtype)


Q, KV = ones(T, H), ones(S, H)
QH, KVH = ones(B, T, N, H), ones(B, S, K, H)


def plain(**options):
    return lambda: attend(Q, KV, KV, **options)


def heads(**options):
    return lambda: attend_heads(QH, KVH, KVH, **options)


def per_sequence(batch: int):
    """Lengths `[B]` for `[B, T, N, H]`: with B = N they would be read as one length per head."""
    return lambda: attend_heads(
        ones(batch, T, N, H), ones(batch, S, N, H), ones(batch, S, N, H), mask=masks.lengths(np.arange(batch) + 1)
    )


def full_cache():
    full = cache.append(cache.create(4, K, H), ones(3, K, H), ones(3, K, H))
    return cache.append(full, ones(2, K, H), ones(2, K, H))


CASES = {
    # Operands.
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
    "leading axes": (
        lambda: attend(ones(2, T, H), ones(3, S, H), ones(3, S, H)),
        ValueError,
        [
            "query, key, value: expected leading axes that broadcast",
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
    # Masks.
    "float mask": (
        plain(mask=ones(T, S)),
        TypeError,
        ["mask: expected a mask value", "float32[3,5]", "Pass additive values as a bias", "mods.bias"],
    ),
    "bool array as mask": (
        plain(mask=ones(T, S, dtype=bool)),
        TypeError,
        ["mask: expected a value of jax_attention.masks", "bool[3,5]", "masks.dense(array)"],
    ),
    "bool array joined to a mask": (
        lambda: masks.as_mask([True, False]),
        TypeError,
        ["mask: expected a value", "list", "masks.dense(array)"],
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
        ["mask.key_lengths: expected no leading axis or all", "(4, 4)", "int64[4]", "[:, None]"],
    ),
    "lengths per batch where B != N": (
        per_sequence(3),
        ValueError,
        ["mask.key_lengths: expected no leading axis or all", "(3, 4)", "int64[3]", "[:, None]"],
    ),
    "segment ids per batch under heads": (
        heads(mask=masks.segments(ones(B, T, dtype=np.int32), ones(B, S, dtype=np.int32))),
        ValueError,
        ["mask.query_ids: expected no leading axis or all", "int32[2,3]", "[:, None, :]"],
    ),
    "one slope per batch element": (
        heads(mods=mods.alibi(ones(B))),
        ValueError,
        ["mods[0].slopes: expected leading axes that broadcast", "(2, 4)", "float32[2]", "[:, None]"],
    ),
    "no lengths": (masks.lengths, ValueError, ["key_lengths, query_lengths: expected at least one", "None for both"]),
    "float lengths": (
        lambda: masks.lengths(2.0),
        TypeError,
        ["key_lengths: expected an integer or an array of integers", "float 2.0"],
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
    # Scores, mods, normalizers.
    "score factory": (
        plain(score=scores.dot),
        TypeError,
        ["score: expected a value", "the factory dot", "scores.dot(...)"],
    ),
    "mask factory": (plain(mask=masks.causal), TypeError, ["mask: expected a value", "masks.causal(...)"]),
    "mod factory": (plain(mods=(mods.alibi,)), TypeError, ["mod: expected a value", "mods.alibi(...)"]),
    "normalizer factory": (
        plain(normalize=normalizers.softmax),
        TypeError,
        ["normalize: expected a value", "normalizers.softmax(...)"],
    ),
    "score by name": (plain(score="dot"), TypeError, ["score: expected a value of jax_attention.scores", "str 'dot'"]),
    "normalizer by name": (
        plain(normalize="softmax"),
        TypeError,
        ["normalize:", "jax_attention.normalizers", "softmax'"],
    ),
    "bias as an array": (
        plain(mods=(ones(T, S),)),
        TypeError,
        ["mod: expected a value of jax_attention.mods", "float32[3,5]", "mods is a tuple"],
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
    # Positions.
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
        ["query_positions: expected leading axes that broadcast against (2,)", "int32[2,4,3]"],
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
    # Dropout, implementations, the rest.
    "dropout as a float": (
        plain(dropout=0.1),
        TypeError,
        ["dropout: expected Dropout(rng, rate) or None", "float 0.1"],
    ),
    "dropout of everything": (lambda: Dropout(RNG, 1.0), ValueError, ["rate: expected 0 <= rate < 1, got 1.0", "None"]),
    "unknown implementation": (
        plain(implementation="flash"),
        ValueError,
        ["implementation: there is no implementation 'flash'", "'reference'", "Leave it None"],
    ),
    "explain says so too": (
        lambda: explain(Q, KV, KV, implementation="cudnn9"),
        ValueError,
        ["implementation: there is no implementation 'cudnn9'"],
    ),
    "weights check as attend": (
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
        ["partials[0]: expected logsumexp[...] beside output[..., E]", "float32[3,6]"],
    ),
    "cache overflow": (
        full_cache,
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


@pytest.mark.parametrize("name", CASES)
def test_message_names_argument_expectation_finding_and_cure(name):
    call, kind, fragments = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is kind
    assert [fragment for fragment in fragments if fragment not in message] == [], message


@pytest.mark.parametrize("name", ["integer query", "padding mask under heads", "head sizes", "mod of a wrong shape"])
def test_the_message_is_the_same_under_jit(name):
    call, kind, fragments = CASES[name]
    with pytest.raises(kind, match=re.escape(fragments[0])):
        jax.jit(lambda _: call())(0)


def test_no_chex_text_and_no_chained_traceback_reaches_the_user():
    with pytest.raises(TypeError) as caught:
        CASES["integer query"][0]()
    assert caught.value.__suppress_context__
    assert "chex" not in str(caught.value).lower()


def test_what_looks_alike_but_is_right_is_accepted():
    lengths = jnp.arange(1, B + 1)
    assert heads(mask=masks.lengths(lengths[:, None]))().shape == QH.shape
    assert heads(mask=masks.dense(ones(B, S, dtype=bool)[:, None, None, :]))().shape == QH.shape
    assert heads(mods=mods.alibi(ones(N)))().shape == QH.shape
    assert attend(QH, ones(B, 1, S, H), ones(B, 1, S, H)).shape == QH.shape
