"""Expressions of any shape on the command line: a part, or an error of the expression."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_attention.cli.expressions import ExpressionError, parse

PARTS = ("score", "mods", "mask", "normalize", "rope", "local_rope")
NAMES = ["causal", "sliding_window", "soft_cap", "softmax", "cosine", "rotary", "lengths", "alibi", "nothing", "exec"]
ATOMS = ["0", "-3", "1e400", "2.5", "'x'", "None", "True", "[1, 2]", "[]", "(1,)", "9" * 40, "1j", "...", "__import__"]


def calls(inner):
    arguments = st.lists(inner, max_size=3).map(", ".join)
    named = st.builds("{}={}".format, st.sampled_from(["offset", "left", "cap", "base", "x"]), inner)
    return st.one_of(
        st.builds("{}({})".format, st.sampled_from(NAMES), arguments),
        st.builds("{}({})".format, st.sampled_from(NAMES), named),
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["&", "|", "+", "**", "@", ","]), inner),
        st.builds("{}({})".format, st.sampled_from(["~", "-", "not ", "lambda: ", "*"]), inner),
        st.builds("({}).{}".format, inner, st.sampled_from(["__class__", "causal", "x"])),
    )


EXPRESSIONS = st.recursive(st.sampled_from([*ATOMS, *NAMES]), calls, max_leaves=8)


@settings(max_examples=300)
@given(part=st.sampled_from(PARTS), text=st.one_of(EXPRESSIONS, st.text(max_size=30)))
def test_any_expression_is_a_part_or_an_error(part, text):
    with contextlib.suppress(ExpressionError):
        parse(part, text)


@pytest.mark.parametrize("text", ["~" * 5000 + "causal()", "(" * 5000, "causal()" + " & causal()" * 5000, "a" * 10**6])
def test_long_and_deep_expressions(text):
    with pytest.raises(ExpressionError, match="mask: expected ") as error:
        parse("mask", text)
    assert len(str(error.value)) < 400
