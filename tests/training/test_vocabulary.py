"""Token ids that the model lacks are an error before the first step, which names both sizes of the vocabulary.

https://github.com/karpathy/nanoGPT/issues/131: with a tokenizer of more ids than the model has, steps were NaN and the
advice was to lower the learning rate; an evaluation returned NaN.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jax_attention import data, models, nn, training
from jax_attention.cache import EMPTY
from jax_attention.training import vocabulary
from tests.models.small import filled
from tests.support.bigram import config

V = 11
SMALL = {"vocab_size": V, "width": 8, "depth": 1, "num_heads": 2}
LM = filled(lambda: models.create(models.LMConfig(context=8, **SMALL)))
RNN = filled(lambda: models.create(models.RNNConfig(source_vocab_size=7, vocab_size=V, width=8, hidden_size=8)))
PAIR = filled(
    lambda: models.create(
        models.EncoderDecoderConfig(
            encoder=models.LMConfig(mask=None, **SMALL | {"vocab_size": 7}),
            decoder=models.LMConfig(memory_size=8, **SMALL),
        )
    )
)


class State(NamedTuple):
    model: object
    step: np.ndarray = np.zeros((), np.int32)


def no_step(state, batch, *base):
    raise AssertionError("a step was traced")


def no_evaluation(model, batch):
    raise AssertionError("an evaluation was traced")


def windows(*ids, declared=None):
    """Tokens of one text that holds these ids, with the vocabulary of its tokenizer."""
    ids = np.array([0, 1, 2, 3] * 40 + list(ids), np.uint16)
    vocabulary = declared if declared is not None else int(ids.max()) + 1
    return data.Windows(data.Tokens(ids, np.array([0, len(ids)]), vocabulary), length=4)


def pairs(source_id, target_id):
    return data.Seq2SeqBatches([[1, 2]] * 40 + [[source_id]], [[1]] * 40 + [[target_id]], start=4, stop=5, multiple=1)


class Batch(NamedTuple):
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: None = None
    segment_ids: None = None


class OwnSource:
    """A source that says nothing about its tokens: two rows with an id in a place of a weight."""

    def __init__(self, token, weight=1.0):
        self.token, self.weight = token, weight

    def batch(self, seed, step, batch_size):
        tokens = np.ones((batch_size, 4), np.int32)
        weights = np.ones((batch_size, 4), np.float32)
        tokens[1, 2], weights[1, 2] = self.token, self.weight
        return Batch(tokens, np.ones_like(tokens), weights)

    def evaluation_batches(self, batch_size):
        yield self.batch(0, 0, batch_size)


TOKENS = f"tokens: expected ids below {V}, the vocabulary of the model, got 29, .* the data has at least 30 ids"
WRONG = {
    "language model": (LM, windows(29), TOKENS),
    "targets of a Transformer": (PAIR, pairs(3, 29), TOKENS),
    "sources of a Transformer": (
        PAIR,
        pairs(8, 3),
        "source: expected ids below 7, .* got 8, .* at least 9 ids",
    ),
    "targets of an RNN": (RNN, pairs(3, 29), TOKENS),
    "sources of an RNN": (RNN, pairs(8, 3), "source: expected ids below 7, .* got 8, .* at least 9 ids"),
    "a source of one's own": (LM, OwnSource(29), TOKENS),
    "negative ids": (LM, OwnSource(-100), "tokens: expected token ids from 0, got -100"),
}


@pytest.mark.parametrize("case", WRONG)
def test_ids_that_the_model_lacks_are_refused_before_the_first_step(case):
    model, source, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        training.fit(State(model), no_step, source, config())
    with pytest.raises(ValueError, match=message):
        training.make_evaluate(source, 4, evaluate_step=no_evaluation)(model)


def test_the_base_of_adapters_is_the_model():
    state = State(nn.lora(LM, 2, 0))
    with pytest.raises(ValueError, match=TOKENS):
        training.fit(state, no_step, windows(29), config(), base=LM)


def test_ids_that_occur_count_and_not_those_that_the_tokenizer_has():
    """A tokenizer of 256 bytes, and a text of few of them."""

    def step(state, batch):
        return State(state.model, state.step + 1), {"loss": batch.weights.sum()}

    for source in (windows(10, declared=256), OwnSource(29, weight=0.0)):
        state = jax.tree.map(jax.numpy.array, State(LM))  # a copy, because `fit` donates it
        assert int(training.fit(state, step, source, config(steps=1)).state.step) == 1
    tokens = windows(10, declared=256).tokens
    assert (tokens.largest_id, data.Tokens(np.zeros(0, np.uint16), np.array([0]), 5).largest_id) == (10, -1)


def test_padding_of_a_source_may_hold_anything():
    batch = data.Seq2SeqBatch(*(np.zeros((1, 3), np.int32),) * 4, np.ones((1, 3), np.float32))
    padded = batch._replace(source=np.array([[1, 2, -1]]), source_positions=np.array([[0, 1, EMPTY]]))
    vocabulary.check_batch({"tokens": V, "source": 7}, padded)
    vocabulary.check_batch({"source": 7}, padded._replace(source=padded.source.astype(np.uint16)))
    with pytest.raises(ValueError, match="source: expected token ids from 0, got -1"):
        vocabulary.check_batch({"source": 7}, padded._replace(source_positions=np.array([[0, 1, 2]])))


class WrongTargets:
    def evaluation_batches(self, batch_size):
        targets = np.full((batch_size, 4), -100, np.int32)
        yield data.Batch(np.zeros((batch_size, 4), np.int32), targets, np.ones((batch_size, 4), np.float32))


def test_an_evaluation_of_targets_that_are_no_class_is_an_error_and_not_nan():
    with pytest.raises(ValueError, match=r"targets: expected classes of the model, got -100, .*ignore_index=-100"):
        training.make_evaluate(WrongTargets(), 2)(LM)
    ignored = functools.partial(training.language_model_loss, ignore_index=-100)
    with pytest.raises(ValueError, match="at least one token to predict"):
        training.make_evaluate(WrongTargets(), 2, evaluate_step=ignored)(LM)
