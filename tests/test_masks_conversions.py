"""Alignment, windows, polarity and algebra of masks, against matrices written out by hand and masks of other libraries.

Pictures read as in `Mask.describe`: one string per query, `#` where it may attend, `.` where not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers.masking_utils as hf_masks
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from jax_attention import attend, attention_weights, attention_weights_heads, masks
from tests.tolerances import FORWARD

CLOSE = {"rtol": FORWARD["float32"], "atol": FORWARD["float32"]}


def picture(mask, T: int, S: int, **where) -> list[str]:
    """What `attend` makes of a mask: the non-zero weights of equal scores."""
    q, k = np.zeros((T, 2), np.float32), np.zeros((S, 2), np.float32)
    weights = jax.jit(attention_weights)(q, k, k, mask=masks.as_mask(mask), **where)
    return ["".join(".#"[int(x > 0)] for x in row) for row in np.asarray(weights)]


def matrix(rows: list[str]) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


# --- causal alignment: flax#5591, pytorch#108108, mlx#2835, flash-attention#517

TRIANGLE = ["#.......", "##......", "###.....", "####....", "#####...", "######..", "#######.", "########"]
ALIGNMENTS = [
    # T, S, offset, picture
    (1, 8, 0, ["#......."]),
    (1, 8, 7, ["########"]),  # the end: S - T
    (1, 8, 2, ["###....."]),
    (3, 8, 0, ["#.......", "##......", "###....."]),
    (3, 8, 5, ["######..", "#######.", "########"]),  # the end
    (3, 8, 2, ["###.....", "####....", "#####..."]),
    (8, 8, 0, TRIANGLE),  # start and end at once
    (8, 8, 2, [*TRIANGLE[2:], TRIANGLE[7], TRIANGLE[7]]),
    (8, 8, -1, ["........", *TRIANGLE[:7]]),
    (8, 3, 0, ["#..", "##.", *["###"] * 6]),
    (8, 3, -5, [*["..."] * 5, "#..", "##.", "###"]),  # the end
    (8, 3, 2, ["###"] * 8),
]


@pytest.mark.parametrize(("T", "S", "offset", "expected"), ALIGNMENTS)
def test_causal_alignment(T, S, offset, expected):
    """The same picture three ways: an offset, positions of the queries, positions of the keys."""
    assert picture(masks.causal(offset), T, S) == expected
    assert picture(masks.causal(), T, S, query_positions=np.arange(T) + offset) == expected
    assert picture(masks.causal(), T, S, key_positions=np.arange(S) - offset) == expected


@pytest.mark.parametrize(("T", "S"), [(1, 8), (3, 8), (8, 8)])
def test_end_alignment_is_torch_lower_right(T, S):
    weights = scaled_dot_product_attention(
        torch.zeros(1, T, 2), torch.zeros(1, S, 2), torch.eye(S)[None], attn_mask=causal_lower_right(T, S)
    )
    np.testing.assert_array_equal(matrix(picture(masks.causal(S - T), T, S)), weights[0].numpy() > 0)


@pytest.mark.parametrize(("T", "S"), [(1, 8), (3, 8), (8, 8), (8, 3)])
def test_start_alignment_is_torch_is_causal_and_jax_nn(T, S):
    ours = matrix(picture(masks.causal(), T, S))
    weights = scaled_dot_product_attention(
        torch.zeros(1, T, 2), torch.zeros(1, S, 2), torch.eye(S)[None], is_causal=True
    )
    np.testing.assert_array_equal(ours, weights[0].numpy() > 0)
    np.testing.assert_array_equal(ours, jax_nn_picture(T, S, is_causal=True))


def jax_nn_picture(T: int, S: int, **options) -> np.ndarray:
    """With one-hot values the output of jax.nn is its weights; it wants values of the keys' size."""
    q, k, one_hot = (np.zeros((n, 1, S), np.float32) for n in (T, S, S))
    one_hot[:, 0] = np.eye(S)
    return np.asarray(jax.jit(lambda: jax.nn.dot_product_attention(q, k, one_hot, **options))()[:, 0] > 0)


def test_cached_decoding_sees_all_earlier_keys():
    """flax#5591: a single query behind a cache must not fall back to position 0."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(8, 4)).astype(np.float32) for _ in range(3))
    full = attend(q, k, v, mask=masks.causal())
    for t in range(8):
        step = attend(q[t : t + 1], k, v, mask=masks.causal(), query_positions=jnp.array([t]))
        np.testing.assert_allclose(step, full[t : t + 1], **CLOSE)


# --- windows, counted per row: transformers#39408, #29176

WINDOWS = [
    # converted, T, S, keys per row
    (masks.from_huggingface_window(3), 6, 6, [1, 2, 3, 3, 3, 3]),
    (masks.from_huggingface_window(1), 4, 4, [1, 1, 1, 1]),
    (masks.from_flash_window((2, 0), 6, 6), 6, 6, [1, 2, 3, 3, 3, 3]),
    (masks.from_flash_window((2, 1), 6, 6), 6, 6, [2, 3, 4, 4, 4, 3]),
    (masks.from_flash_window((2, 1), 6, 6, causal=True), 6, 6, [1, 2, 3, 3, 3, 3]),
    (masks.from_flash_window((-1, -1), 4, 6), 4, 6, [6, 6, 6, 6]),
    (masks.from_flash_window((-1, -1), 4, 6, causal=True), 4, 6, [3, 4, 5, 6]),
    (masks.from_flash_window((1, 0), 2, 6), 2, 6, [2, 2]),
    (masks.from_flash_window((1, 0), 5, 2), 5, 2, [0, 0, 0, 1, 2]),
    (masks.from_flash_window((0, 0), 3, 3), 3, 3, [1, 1, 1]),
    (masks.from_jax_nn_window(1), 5, 5, [2, 3, 3, 3, 2]),
    (masks.from_jax_nn_window((2, 0)), 5, 5, [1, 2, 3, 3, 3]),
    (masks.from_jax_nn_window((0, 2)), 5, 5, [3, 3, 3, 2, 1]),
    (masks.sliding_window(3), 5, 5, [1, 2, 3, 3, 3]),
    (masks.sliding_window(3, 1), 5, 5, [2, 3, 4, 4, 3]),
    (masks.sliding_window(None, 1), 4, 4, [2, 3, 4, 4]),
    (masks.sliding_window(2, None), 4, 4, [4, 4, 3, 2]),
]


@pytest.mark.parametrize(("mask", "T", "S", "counts"), WINDOWS)
def test_window_counts(mask, T, S, counts):
    assert matrix(picture(mask, T, S)).sum(-1).tolist() == counts


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (2, 0), (1, 2), (0, -1)])
@pytest.mark.parametrize(("T", "S"), [(1, 8), (3, 8), (8, 8), (8, 3)])
def test_flash_window_from_its_rule(T, S, window, causal):
    """Flash-Attention's documented rule: query t sees keys [t + S - T - left, t + S - T + right], ends included."""
    left, right = window
    right = 0 if causal else right
    expected = [
        [(left < 0 or s >= t + S - T - left) and (right < 0 or s <= t + S - T + right) for s in range(S)]
        for t in range(T)
    ]
    np.testing.assert_array_equal(
        matrix(picture(masks.from_flash_window(window, T, S, causal=causal), T, S)), np.array(expected)
    )


@pytest.mark.parametrize("window", [1, (2, 0), (0, 1), (3, 2)])
@pytest.mark.parametrize(("T", "S"), [(3, 8), (8, 8)])
def test_jax_nn_window(T, S, window):
    """jax.nn aligns at the start, also when T != S (jax#32300)."""
    ours = matrix(picture(masks.from_jax_nn_window(window), T, S))
    np.testing.assert_array_equal(ours, jax_nn_picture(T, S, local_window_size=window))


@pytest.mark.parametrize("window", [1, 3, 20])
def test_huggingface_window(window):
    rule = hf_masks.sliding_window_causal_mask_function(window)
    theirs = hf_masks.sdpa_mask(1, 8, 8, mask_function=rule, allow_is_causal_skip=False)[0, 0].numpy()
    np.testing.assert_array_equal(matrix(picture(masks.from_huggingface_window(window), 8, 8)), theirs)


@pytest.mark.parametrize("width", [1, 3])
def test_torch_band(width):
    """PyTorch has no window: people write a band of `tril` and `triu`; it is `sliding_window(width)`."""
    band = torch.ones(6, 6, dtype=torch.bool).tril().triu(-(width - 1)).numpy()
    np.testing.assert_array_equal(matrix(picture(masks.sliding_window(width), 6, 6)), band)
    np.testing.assert_array_equal(matrix(picture(masks.from_torch_sdpa(band).mask, 6, 6)), band)


# --- polarity: equinox#463, LLMs-from-scratch#1061, x-transformers#164, pytorch#120668

B, T, N, D = 2, 5, 2, 8
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)


def forbidden(shape, seed: int = 0) -> np.ndarray:
    """True = forbidden, as `torch.nn.MultiheadAttention` reads it; key 0 stays allowed."""
    return (np.random.default_rng(seed).random(shape) < 0.4) & (np.arange(shape[-1]) > 0)


def additive(shape, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed + 10).normal(size=shape).astype(np.float32)
    return np.where(forbidden(shape, seed), -np.inf, noise).astype(np.float32)


TORCH_MHA = {
    "attn_mask [T, S]": {"attn_mask": forbidden((T, T))},
    "attn_mask [T, S], float": {"attn_mask": additive((T, T), 1)},
    "attn_mask [B * N, T, S]": {"attn_mask": forbidden((B * N, T, T)), "num_heads": N},
    "attn_mask [B * N, T, S], float": {"attn_mask": additive((B * N, T, T), 2), "num_heads": N},
    "key_padding_mask": {"key_padding_mask": forbidden((B, T))},
    "key_padding_mask, float": {"key_padding_mask": additive((B, T), 3)},
    "both": {"attn_mask": forbidden((T, T), 4), "key_padding_mask": forbidden((B, T), 5)},
    "both, float": {"attn_mask": additive((T, T), 6), "key_padding_mask": additive((B, T), 7)},
    "causal": {"attn_mask": torch.nn.Transformer.generate_square_subsequent_mask(T).numpy()},
}


@pytest.mark.parametrize("name", TORCH_MHA)
def test_torch_multihead_masks(name):
    """The weights of a torch layer whose projections are identities."""
    layer = torch.nn.MultiheadAttention(D, N, bias=False, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(D).repeat(3, 1))
    given = {key: torch.tensor(x) for key, x in TORCH_MHA[name].items() if key != "num_heads"}
    x = torch.tensor(X)
    theirs = layer(x, x, x, average_attn_weights=False, **given)[1].detach().numpy()
    heads = X.reshape(B, T, N, D // N)
    converted = masks.from_torch_mha(**TORCH_MHA[name])
    ours = attention_weights_heads(heads, heads, heads, **converted._asdict())
    np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_torch_mha_and_sdpa_have_opposite_polarity():
    array = forbidden((T, T))
    mha, sdpa = masks.from_torch_mha(array).mask, masks.from_torch_sdpa(array).mask
    np.testing.assert_array_equal(matrix(picture(mha, T, T)), ~array)
    np.testing.assert_array_equal(matrix(picture(~sdpa, T, T)), ~array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected at least one of them, got None for both"),
        ({"attn_mask": np.ones((4, 2, 2), bool)}, r"A 3-d attn_mask is \[B \* num_heads, T, S\]: pass num_heads"),
        ({"attn_mask": np.ones((4, 2, 2), bool), "num_heads": 3}, "divisible by num_heads = 3"),
        ({"attn_mask": np.ones(2, bool)}, r"expected \[T, S\] or \[B \* num_heads, T, S\]"),
        ({"key_padding_mask": np.ones((1, 2, 3), bool)}, r"expected \[B, S\] or \[S\]"),
        ({"attn_mask": np.ones((2, 2), int)}, "attn_mask != 0"),
    ],
)
def test_torch_mha_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        masks.from_torch_mha(**arguments)


PADDING = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def test_huggingface_padding():
    ours = masks.from_huggingface(PADDING)
    assert ours.mods == ()
    np.testing.assert_array_equal(ours.mask.array, (PADDING == 1)[:, None, None])


@pytest.mark.parametrize("dtype", ["bool", "float32", "float16", "bfloat16"])
def test_huggingface_prepared(dtype):
    """The `[B, 1, T, S]` mask that transformers builds from padding and causality."""
    padding = torch.tensor(PADDING == 1)
    allowed = hf_masks.sdpa_mask(B, T, T, attention_mask=padding, allow_is_causal_skip=False)
    if dtype == "bool":
        prepared = allowed.numpy()
    else:
        floats = hf_masks.eager_mask(B, T, T, attention_mask=padding, dtype=getattr(torch, dtype))
        prepared = jnp.asarray(floats.float().numpy(), dtype)
    np.testing.assert_array_equal(masks.from_huggingface(prepared).mask.array, allowed.numpy())
    by_hand = masks.from_huggingface(PADDING).mask & masks.causal()
    tile = by_hand(jnp.arange(T)[:, None], jnp.arange(T)[None])
    np.testing.assert_array_equal(tile, allowed.numpy())


def test_huggingface_float_mask_keeps_a_finite_bias():
    """T5 adds its position bias to the mask: what is not the lowest number is a bias."""
    prepared = np.array([[[[0.5, -2.0, np.finfo(np.float32).min, np.finfo(np.float32).min + 1e30]]]], np.float32)
    ours = masks.from_huggingface(prepared)
    np.testing.assert_array_equal(ours.mask.array, [[[[True, True, False, False]]]])
    np.testing.assert_array_equal(ours.mods[0].array, [[[[0.5, -2.0, 0.0, 0.0]]]])


def test_huggingface_rank_is_checked():
    with pytest.raises(ValueError, match=r"attention_mask: expected \[B, S\] or \[B, 1, T, S\], got int\d+\[5\]"):
        masks.from_huggingface(PADDING[0])


# --- empty rows


@pytest.mark.parametrize(
    ("mask", "sizes", "expected"),
    [
        (masks.causal(-5), (8, 3), [True] * 5 + [False] * 3),
        (masks.causal(), (8, 3), [False] * 8),
        (masks.lengths(0), (2, 3), [True, True]),
        (masks.lengths(2, 1), (3, 3), [False, True, True]),
        (masks.dense(np.array([[True, False], [False, False]])), (2, 2), [False, True]),
        (lambda q, k: k > q, (3, 3), [False, False, True]),
        (~masks.causal(), (3, 3), [False, False, True]),
        (masks.causal(), (2, 0), [True, True]),
        (masks.prefix(np.array([0, 1])), (2, 2), [[True, True], [False, False]]),
    ],
)
def test_fully_masked_rows(mask, sizes, expected):
    np.testing.assert_array_equal(masks.fully_masked_rows(mask, *sizes), expected)


def test_fully_masked_rows_sees_positions():
    late = masks.fully_masked_rows(masks.causal(), 2, 3, key_positions=np.array([1, 2, 3]))
    np.testing.assert_array_equal(late, [True, False])
    chunk = masks.fully_masked_rows(masks.chunked(4), 2, 4, query_positions=jnp.array([3, 4]))
    np.testing.assert_array_equal(chunk, [False, True])


# --- algebra


def even(q_pos, k_pos):
    """A plain function."""
    return (q_pos + k_pos) % 2 == 0


def test_plain_functions_on_both_sides():
    """Every operator, a mask and a function, in both orders."""
    c, e = matrix(picture(masks.causal(), 4, 4)), matrix(picture(even, 4, 4))
    for joined, expected in [
        (masks.causal() & even, c & e),
        (even & masks.causal(), c & e),
        (masks.causal() | even, c | e),
        (even | masks.causal(), c | e),
        (~masks.as_mask(even), ~e),
        (~(even & masks.causal()) | even, ~(c & e) | e),
    ]:
        np.testing.assert_array_equal(matrix(picture(joined, 4, 4)), expected)


LEAVES = st.one_of(
    st.builds(masks.causal, st.integers(-3, 3)),
    st.builds(masks.sliding_window, st.integers(1, 4), st.integers(0, 2), st.integers(-2, 2)),
    st.builds(masks.prefix, st.integers(0, 5)),
    st.builds(masks.dilated, st.integers(1, 3)),
    st.builds(masks.chunked, st.integers(1, 4)),
    st.builds(masks.lengths, st.integers(0, 5), st.integers(0, 5)),
    st.just(masks.as_mask(even)),
)
TREES = st.recursive(
    LEAVES,
    lambda t: st.one_of(
        st.builds(lambda a, b: a & b, t, t), st.builds(lambda a, b: a | b, t, t), st.builds(lambda a: ~a, t)
    ),
    max_leaves=4,
)


@given(TREES, TREES)
def test_boolean_algebra(a, b):
    """De Morgan, double negation, distribution, excluded middle, as matrices."""

    def m(mask):
        tile = mask(np.arange(5)[:, None], np.arange(6)[None])
        return np.broadcast_to(np.asarray(tile), (5, 6))

    assert np.array_equal(m(~(a & b)), m(~a | ~b))
    assert np.array_equal(m(~(a | b)), m(~a & ~b))
    assert np.array_equal(m(~~a), m(a))
    assert np.array_equal(m(a & (a | b)), m(a))
    assert np.array_equal(m(a & b), m(a) & m(b))
    assert np.array_equal(m(a | b), m(a) | m(b))
    assert not m(a & ~a).any()
    assert m(a | ~a).all()


def test_masks_compare_by_content():
    """A fresh value is the same value, so it never recompiles."""
    assert masks.causal() & masks.prefix(2) == masks.causal() & masks.prefix(2)
    assert masks.causal() & masks.prefix(2) != masks.causal() & masks.prefix(3)
    assert hash(~masks.causal(1)) == hash(~masks.causal(1))


# --- readable


def test_describe():
    shown = ((masks.causal() | masks.prefix(2)) & ~masks.as_mask(even)).describe(3, 4)
    assert shown.splitlines() == [
        "((causal() | prefix(length=2)) & ~even)",
        "3 queries x 4 keys, # may attend:",
        "q 0  . # . .",
        "q 1  # . . .",
        "q 2  . # . .",
    ]


def test_describe_keeps_columns_straight():
    lines = masks.sliding_window(2).describe(11).splitlines()
    assert lines[0] == "sliding_window(left=2)"
    assert lines[2] == "q  0  # . . . . . . . . . ."
    assert lines[12] == "q 10  . . . . . . . . . # #"


def test_describe_shows_arrays_by_shape():
    mask = masks.dense(np.ones((3, 1, 2, 2), bool)) & masks.segments(jnp.array([0, 1]))
    assert repr(mask) == "(dense(array=bool[3,1,2,2]) & segments(query_ids=int32[2], key_ids=int32[2]))"
    assert mask.describe(2).splitlines()[2:] == ["q 0  # .", "q 1  . #"]
