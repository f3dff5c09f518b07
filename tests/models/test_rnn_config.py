"""Configs of recurrent encoder–decoders: sizes, the rule and its parameters, dtypes, and what is refused."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import decoding, models, nn, normalizers, scores
from tests.models import small
from tests.models.small_rnn import RIGHT, SOURCE, H, S, T, config, seq2seq, target


def test_other_normalizers_and_sizes():
    model = seq2seq("dot", normalize=normalizers.sparsemax(), bidirectional=False)
    out = small.jit(lambda model: model(SOURCE, target(2, T), capture=models.Capture(cross=(0,))))(model)
    maps = np.asarray(out.captured.cross[0])
    np.testing.assert_allclose(maps.sum(-1), 1, **small.CLOSE)
    assert np.any(maps == 0)
    wide = seq2seq("additive", attention_size=3)
    assert wide.decoder.score.key_kernel.shape == (H, 3)


def test_the_plain_sum_has_no_vector():
    whole = seq2seq("additive")
    whole.decoder.score.vector[...] = jnp.ones(H)
    params = models.to_dict(whole)
    assert params["decoder"]["score"].pop("vector").shape == (H,)
    plain = models.from_dict(config("additive", attention_vector=False), params)
    assert plain.decoder.score.vector is None
    logits = small.jit(lambda *both: [model(SOURCE, target(2, T)).logits for model in both])(plain, whole)
    np.testing.assert_allclose(*logits, **small.CLOSE)


@pytest.mark.slow
def test_train_rule_makes_the_rules_numbers_parameters():
    """Constants and parameters give the same logits; parameters have a gradient, in their dtype."""
    rule = {"normalize": normalizers.softmax(sinks=jnp.zeros(()))}
    loss = lambda model: jnp.sin(model(SOURCE, target(2, T)).logits).sum()  # noqa: E731

    @small.jit
    def run():
        fixed, learned = (models.create(config("cosine", train_rule=train, **rule)) for train in (False, True))
        assert len(jax.tree.leaves(learned)) == len(jax.tree.leaves(fixed)) + 2
        return loss(fixed), *jax.value_and_grad(loss)(learned)

    plain, value, gradient = run()
    np.testing.assert_allclose(plain, value, **small.CLOSE)
    for part in (gradient.decoder.score, gradient.decoder.normalize):
        (slope,) = jax.tree.leaves(part)
        assert abs(slope) > 1e-6
    narrow = jax.eval_shape(lambda: models.create(config("cosine", train_rule=True, param_dtype="bfloat16", **rule)))
    assert {x.dtype for x in jax.tree.leaves(narrow)} == {jnp.dtype("bfloat16")}


def test_configs_are_json_and_hashable():
    for score in ("none", "additive", "location", "dot"):
        one = config(score, cell="lstm", dropout=0.1, train_rule=score == "dot")
        assert models.config_from_json(json.loads(json.dumps(models.config_to_json(one)))) == one
        assert hash(one) == hash(config(score, cell="lstm", dropout=0.1, train_rule=score == "dot"))
    plain = config("additive", attention_vector=False)
    assert models.config_from_json(json.loads(json.dumps(models.config_to_json(plain)))) == plain != config("additive")
    with pytest.raises(ValueError, match="expected fields of RNNConfig, got also depth"):
        models.config_from_json(models.config_to_json(config()) | {"depth": 3})


STATES = jnp.asarray(np.ones((2, S, H), np.float32))
BAD = {
    "an odd size": (lambda: config(hidden_size=7), "hidden_size: expected an even number"),
    "a cell": (lambda: config(cell="rnn"), "cell: expected one of"),
    "a mask as score": (lambda: config("dot", normalize=scores.dot()), "normalize: expected"),
    "nothing to normalise": (lambda: config("none", normalize=normalizers.softmax()), "score: expected a score with"),
    "nothing to train": (lambda: config("none", train_rule=True), "score: expected a score with"),
    "a factory": (lambda: models.RNNConfig(source_vocab_size=3, vocab_size=3, score=scores.dot), "Call it: scores.dot"),
    "another class": (lambda: models.RNNConfig(source_vocab_size=3, vocab_size=3, score=nn.GRU), "score: expected"),
    "no size": (lambda: config(num_layers=0), "num_layers: expected an int >= 1"),
    "a size too many": (lambda: config("dot", attention_size=3), "attention_size: expected None"),
    "a vector too few": (lambda: config("dot", attention_vector=False), "attention_vector: expected True"),
    "no truth": (lambda: config("dot", train_rule=1), "train_rule: expected True or False"),
    "dropout": (lambda: config(dropout=1.0), "dropout: expected 0 <= rate < 1"),
    "a dtype": (lambda: config(param_dtype="int8"), "param_dtype: expected one of"),
    "more sources": (lambda: seq2seq()(SOURCE, target(T)), "target: expected the batch dimensions of the source"),
    "floats": (lambda: seq2seq()(SOURCE * 1.0, target(2, T)), "source: expected integers"),
    "a long source": (
        lambda: seq2seq("location").condition(jnp.zeros(10, int)),
        "source: expected at most context = 9",
    ),
    "fewer prompts": (
        lambda: decoding.generate(seq2seq().condition(SOURCE), [1], max_new_tokens=2),
        r"memory: expected batch dimensions that broadcast to those of the target, \(\), got \(2,\)",
    ),
    "maps of no rule": (
        lambda: seq2seq("none")(SOURCE, target(2, T), capture=models.Capture(cross="all")),
        "capture.cross: expected nothing, as a model with score=None",
    ),
    "maps of blocks": (
        lambda: seq2seq()(SOURCE, target(2, T), capture=models.Capture(weights="all")),
        "capture: expected cross alone",
    ),
    "a foreign memory": (
        lambda: seq2seq().decoder(target(2, T), memory=STATES),
        "memory: expected models.RNNMemory, got a value of type ArrayImpl. Make it by model.encode",
    ),
    "a foreign cache": (
        lambda: seq2seq().decoder(target(2, T), memory=seq2seq().encode(SOURCE), cache=3),
        "cache: expected models.RNNState, got a value of type int",
    ),
    "scanned": (lambda: models.scan_layers(seq2seq()), "model: expected a Transformer"),
    "a pair for generate": (lambda: decoding.generate(seq2seq(), [1], max_new_tokens=1), "reads a source first"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_calls_are_refused(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        jax.eval_shape(call)


WIDTHS = [("float32", True), ("bfloat16", False), ("float64", True)]
KINDS = [
    ("none", {}),
    ("cosine", {"train_rule": True, "normalize": normalizers.softmax(sinks=jnp.zeros(()))}),
    *((score, {}) for score in ("additive", "location", "general", "concat", "dot", "plain")),
    ("additive", {"attention_vector": False}),
]
GRID = [
    # Every width once, each with another kind.
    pytest.param(*kind, *width, marks=() if i == j else pytest.mark.slow)
    for i, kind in enumerate(KINDS)
    for j, width in enumerate(WIDTHS)
]


@pytest.mark.parametrize(("score", "changes", "dtype", "x64"), GRID)
def test_nothing_is_promoted_silently(score, changes, dtype, x64):
    """Strict promotion raises when traced. Logits are at least float32."""
    with jax.enable_x64(x64), jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):

        def run(rng):
            model = models.create(config(score, param_dtype=dtype, cell="lstm", **changes), rng)
            found = lambda model: model(SOURCE, target(2, T), source_positions=RIGHT).logits  # noqa: E731
            return found(model), jax.grad(lambda model: jnp.sum(found(model)))(model)

        logits, gradient = jax.eval_shape(run, jax.random.key(0))
    assert logits.dtype == ("float64" if dtype == "float64" else "float32")
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype(dtype)}
