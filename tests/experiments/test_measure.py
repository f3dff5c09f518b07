"""Costs: rounds that call everything, ratios to the base, memory as XLA reports it; rules by name."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import measure
from experiments.seq2seq_models import RULES, Sizes, rule_fields, seq2seq_model
from jax_attention import data, nn, scores


def shape_of(name, source_words, target_words, longest=64):
    """Model of this name with shapes instead of arrays: no program that draws its parameters is compiled."""
    return jax.eval_shape(seq2seq_model(name, source_words, target_words, Sizes(width=8), longest), jax.random.key(0))


def test_a_round_calls_everything(monkeypatch):
    """The calls advance a fake clock, so that a busy machine changes no ratio."""
    called, now = [], [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])
    durations = {"dot": 0.002, "other": 0.02, "last": 0.002}

    def call(name):
        called.append(name)
        now[0] += durations[name]

    times = measure.time_interleaved({name: partial(call, name) for name in durations}, 4)
    rounds = [called[first : first + 3] for first in range(0, 15, 3)]
    assert rounds[0] == list(durations), "once before the clock runs"
    assert [sorted(names) for names in rounds[1:]] == [sorted(durations)] * 4
    assert len({tuple(names) for names in rounds}) > 1, "the order changes"
    assert [len(seconds) for seconds in times.values()] == [4, 4, 4]
    np.testing.assert_allclose(times["other"] / times["dot"], 10, rtol=1e-6)


def test_memory_counts_intermediate_arrays():
    total = lambda x: jnp.sum(jnp.sin(x @ x.T) @ x)  # noqa: E731
    small, large = (measure.temporary_mib(total, jax.ShapeDtypeStruct((n, 4), jnp.float32)) for n in (256, 512))
    assert large == pytest.approx(4 * small, rel=0.1)
    assert 1 <= large <= 2.1, "one or two matrices of 512 x 512 numbers"


@pytest.mark.slow
def test_gradients_are_compared_with_the_base(monkeypatch):
    pairs = data.Seq2SeqBatches([[1, 2, 0]] * 8, [[2, 1]] * 8, start=3, stop=4, multiple=1)
    models = {
        name: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shape_of(name, 3, 5, 3))
        for name in ("no attention", "additive")
    }
    monkeypatch.setattr(measure, "time_interleaved", lambda calls, rounds: {n: np.ones(rounds) * len(n) for n in calls})
    none, additive = measure.gradient_costs(models, pairs.batch(0, 0, 4), "additive", 3).values()
    assert (none.time, additive.time) == (1.5, 1.0)
    assert 0 < none.mib < additive.mib


def test_rules_are_those_of_their_names():
    """C1 divides the cosine by the square root of the number of features; B2 leaves the vector out."""
    q, k = np.array([[3.0, 4.0]]), np.array([[4.0, 3.0], [-3.0, -4.0]])
    cosines = {
        name: rule["score"] for name, rule in rule_fields(4).items() if isinstance(rule.get("score"), scores.Cosine)
    }
    products = jax.jit(lambda q, k: {name: score(q, k) for name, score in cosines.items()})(q, k)
    np.testing.assert_allclose(products["cosine"], [[0.96, -1]], rtol=1e-6)
    np.testing.assert_allclose(products["cosine, scale 10"], [[9.6, -10]], rtol=1e-6)
    np.testing.assert_allclose(products["cosine / sqrt(d)"], [[0.48, -0.5]], rtol=1e-6)
    plain = shape_of("additive, plain sum", 5, 7).decoder.score
    assert isinstance(plain, nn.Additive)
    assert plain.vector is None
    assert shape_of("no attention", 5, 7).decoder.score is None
    assert len(RULES) == len({str(rule) for rule in rule_fields(4).values()}), "no rule twice"
