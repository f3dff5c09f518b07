"""Expressions on the command line become the parts that they describe, and nothing else is evaluated."""

from __future__ import annotations

import numpy as np
import pytest

from jax_attention import masks, mods, normalizers, positions, scores
from jax_attention.cli.expressions import ExpressionError, parse

EXPRESSIONS = {
    ("mask", "causal()"): masks.causal(),
    ("mask", "causal(-1) & ~prefix(3) | sliding_window(4, right=2)"): masks.causal(-1) & ~masks.prefix(3)
    | masks.sliding_window(4, right=2),
    ("mask", "masks.chunked(8)"): masks.chunked(8),
    ("mask", "None"): None,
    ("score", "scaled_dot(scale=0.25)"): scores.scaled_dot(scale=0.25),
    ("score", "cosine()"): scores.cosine(),
    ("mods", "soft_cap(30.0)"): (mods.soft_cap(30.0),),
    ("mods", "temperature(2), soft_cap(5)"): (mods.temperature(2), mods.soft_cap(5)),
    ("mods", "alibi([0.5, 0.25])"): (mods.alibi(np.array([0.5, 0.25], np.float32)),),
    ("mods", "none"): (),
    ("normalize", "softmax(plus_one=True)"): normalizers.softmax(plus_one=True),
    ("normalize", "entmax15()"): normalizers.entmax15(),
    ("rope", "rotary(base=5e5, scaling=linear_scaling(2.0))"): positions.rotary(
        base=5e5, scaling=positions.linear_scaling(2.0)
    ),
}


@pytest.mark.parametrize(("part", "text"), EXPRESSIONS)
def test_expression_becomes_the_part(part, text):
    assert parse(part, text) == EXPRESSIONS[part, text]


def test_alibi_with_slopes_from_a_nested_call():
    (mod,) = parse("mods", "alibi(alibi_slopes(4))")
    np.testing.assert_array_equal(mod.slopes, positions.alibi_slopes(4))


WRONG = {
    ("mask", "causal"): "expected a call, got the factory causal itself. Write causal()",
    ("mask", "causal("): "expected an expression such as 'causal() & sliding_window(64)'",
    ("mask", "softmax()"): "expected calls of",
    ("mask", "causal() & sliding_windw(4)"): "got 'sliding_windw(4)'. Did you mean sliding_window?",
    ("mask", "__import__('os').system('true')"): "expected calls of",
    ("mask", "causal().__class__"): "expected calls of",
    ("mask", "[x for x in (1,)]"): "expected calls of",
    ("mask", "causal(offset=1.5)"): "in 'causal(offset=1.5)': offset",
    ("score", "cosine(1, 2, 3)"): "in 'cosine(1, 2, 3)'",
    ("normalize", "entmax()"): "expected calls of",
    ("mods", "soft_cap(-1.0)"): "cap: expected",
}


@pytest.mark.parametrize(("part", "text"), WRONG)
def test_errors_say_what_was_expected(part, text):
    with pytest.raises(ExpressionError) as caught:
        parse(part, text)
    assert WRONG[part, text] in str(caught.value)
    assert part in str(caught.value)
