"""Masks as sets of pairs: the algebra `& | ~`, comparison by content, and `describe`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_attention import masks
from tests.masks.pictures import matrix, picture


def even(q_pos, k_pos):
    """A plain function used as a mask."""
    return (q_pos + k_pos) % 2 == 0


def test_plain_functions_on_both_sides():
    """Each operator takes a mask and a function, in both orders."""
    c, e = matrix(picture(masks.causal(), 4, 4)), matrix(picture(even, 4, 4))
    for mask, expected in [
        (masks.causal() & even, c & e),
        (even & masks.causal(), c & e),
        (masks.causal() | even, c | e),
        (even | masks.causal(), c | e),
        (~masks.as_mask(even), ~e),
        (~(even & masks.causal()) | even, ~(c & e) | e),
    ]:
        np.testing.assert_array_equal(matrix(picture(mask, 4, 4)), expected)


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


def test_and_or_not_drop_no_mask():
    """`causal() and lengths(2)` would be `lengths(2)`."""
    for combine in (
        lambda: masks.causal() and masks.lengths(2),
        lambda: masks.causal() or masks.lengths(2),
        lambda: not masks.causal(),
    ):
        with pytest.raises(TypeError, match=r"mask causal\(\): .*Write &, \| and ~"):
            combine()


def test_masks_compare_by_content():
    """Two masks with the same content are equal, so a fresh one never recompiles."""
    assert masks.causal() & masks.prefix(2) == masks.causal() & masks.prefix(2)
    assert masks.causal() & masks.prefix(2) != masks.causal() & masks.prefix(3)
    assert hash(~masks.causal(1)) == hash(~masks.causal(1))


# --- describe


def test_describe():
    text = ((masks.causal() | masks.prefix(2)) & ~masks.as_mask(even)).describe(3, 4)
    assert text.splitlines() == [
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
