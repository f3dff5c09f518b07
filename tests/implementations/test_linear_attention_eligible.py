"""Rules that linear_attention supports, and its error messages for the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Dropout,
    attend,
    attend_heads,
    attend_with_stats,
    attention_weights,
    explain,
    masks,
    mods,
    normalizers,
    scores,
)


def test_linear_attention_is_chosen_for_long_sequences():
    x = jnp.ones((1024, 4))
    rule = {"score": scores.features("relu"), "normalize": normalizers.proportional(), "mask": masks.causal()}
    report = explain(x, x, x, **rule)
    assert report.chosen == "linear_attention"
    reason = "1 x 1,024 x 1,024 scores need not be computed: keys are summed first"
    assert report.why_not["blockwise"] == reason
    assert explain(x[:512], x[:512], x[:512], **rule).chosen == "reference"
    assert explain(x, x, x, mods=(mods.soft_cap(2.0),), **rule).chosen == "blockwise"
    assert explain(x, x, x).chosen == "blockwise"
    np.testing.assert_allclose(attend(x, x, x, **rule), 1.0, rtol=1e-5)
    assert attend_with_stats(x, x, x, **rule).output.shape == (1024, 4)
    assert attention_weights(x, x, x, **rule).shape == (1024, 1024)


X = jnp.ones((3, 4))
KERNEL = {"score": scores.features("relu"), "normalize": normalizers.proportional()}
REFUSED = {
    "dropout: linear_attention makes no weights": {"dropout": Dropout(jax.random.key(0), 0.1)},
    "mods: linear_attention looks at no single score": {"mods": (mods.soft_cap(2.0),)},
    "score: under proportional.. linear_attention needs a score that is a product of rows": {
        "score": scores.additive(jnp.ones((4, 2)), jnp.ones((4, 2)))
    },
    "score: under linear.. linear_attention needs a score .*, got <lambda>": {
        "score": lambda q, k: q @ k.T,
        "normalize": normalizers.linear(),
    },
    "score: under uniform.. linear_attention needs a built-in score, got <lambda>": {
        "score": lambda q, k: q @ k.T,
        "normalize": normalizers.uniform(),
    },
    "score: under softmax.. linear_attention needs concat, got features.'relu'.": {"normalize": normalizers.softmax()},
    "normalize: linear_attention needs proportional, linear or uniform, or softmax of concat, got sparsemax": {
        "normalize": normalizers.sparsemax()
    },
    "mask: linear_attention needs None, causal, lengths, prefix or `&` of them, got sliding_window.left=2.": {
        "mask": masks.causal() & masks.sliding_window(2)
    },
    "mask: .* got .causal.. . prefix": {"mask": masks.causal() | masks.prefix(2)},
    "mask: .* got segments": {"mask": masks.segments(jnp.array([0, 0, 1]))},
    "query_positions: .* needs the default positions": {"mask": masks.causal(), "query_positions": jnp.arange(3)},
    "key_positions: .* needs the default positions": {"mask": masks.causal(), "key_positions": jnp.arange(3)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_unsupported_rules_are_refused_by_name(message):
    """A named implementation never falls back; the automatic choice runs the call."""
    rule = {**KERNEL, **REFUSED[message]}
    with pytest.raises(ValueError, match=f"implementation: {message}.*Leave it None to choose automatically"):
        attend(X, X, X, implementation="linear_attention", **rule)
    assert attend(X, X, X, **rule).shape == (3, 4)


def test_positions_that_differ_within_the_batch_are_refused():
    x, query_positions = jnp.ones((2, 3, 1, 4)), np.array([[0, 1, 2], [5, 6, 7]])
    with pytest.raises(ValueError, match=r"query_positions: .* needs the default positions"):
        attend_heads(
            x, x, x, mask=masks.causal(), query_positions=query_positions, implementation="linear_attention", **KERNEL
        )


@pytest.mark.parametrize("call", [attention_weights, attend_with_stats])
def test_weights_and_statistics_are_refused(call):
    with pytest.raises(
        ValueError, match="weights and statistics: linear_attention forms none; 'reference' and 'blockwise' do"
    ):
        call(X, X, X, implementation="linear_attention", **KERNEL)
