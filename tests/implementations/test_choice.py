"""The implementation that `implementation=None` chooses for a number of scores, and the reason that it reports."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from jax_attention import explain


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "expected"),
    [
        (8, 512, 512, "reference"),
        (9, 512, 512, "blockwise"),  # more than 2^21 in all
        (1, 512, 513, "blockwise"),  # more than 2^18 for a head
        (129, 128, 128, "reference"),  # tiny heads, in any number
        (127, 129, 129, "blockwise"),
        (32, 1, 65536, "reference"),
        (33, 1, 65536, "blockwise"),
        (33, 65536, 1, "reference"),  # fewer scores than outputs
    ],
)
def test_few_scores_are_computed_densely(heads, queries, keys, expected):
    query, key = jnp.zeros((queries, heads, 2)), jnp.zeros((keys, heads, 2))
    report = explain(query, key, key, heads=True)
    assert report.chosen == expected
    other = {"reference": "blockwise", "blockwise": "reference"}[expected]
    assert report.why_not[other].startswith(f"{heads:,} x {queries:,} x {keys:,} scores")


def test_on_an_accelerator_only_the_size_of_a_head_counts(monkeypatch):
    x = jnp.zeros((512, 9, 2))
    assert explain(x, x, x, heads=True).chosen == "blockwise"
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert explain(x, x, x, heads=True).chosen == "reference"
