"""Messages for wrong calls: the argument, what was expected, what came, and the cure.

The table closes the complaints of equinox#463, flax#4505 ("cannot make sense of this error"), jax#35916 (a layout that
was silently wrong), x-transformers#164 and pytorch#120668 (polarity and shape of masks).
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from jax_attention import attend, masks, mods
from tests.errors import wrong_masks, wrong_operands, wrong_options, wrong_parts
from tests.errors.calls import QH, B, H, N, S, heads, ones

CASES = dict(**wrong_operands.CASES, **wrong_masks.CASES, **wrong_parts.CASES, **wrong_options.CASES)
"""By name: a call, the class of its error, and fragments of the message. A duplicate name is an error."""


@pytest.mark.parametrize("name", CASES)
def test_message_names_argument_expectation_actual_and_cure(name):
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


def test_similar_but_correct_calls_are_accepted():
    lengths = jnp.arange(1, B + 1)
    calls = (
        heads(mask=masks.lengths(lengths[:, None])),
        heads(mask=masks.dense(ones(B, S, dtype=bool)[:, None, None, :])),
        heads(mods=mods.alibi(ones(N))),
        lambda: attend(QH, ones(B, 1, S, H), ones(B, 1, S, H)),
    )
    assert {jax.eval_shape(call).shape for call in calls} == {QH.shape}
