"""Evaluation covers the whole validation split once, and an empty split is an error."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention.training import Losses
from jax_attention.training.evaluation import IN_FLIGHT, make_evaluate
from tests.support.bigram import B, T, Text, make
from tests.support.tolerances import FORWARD


@pytest.mark.parametrize("batch_size", [4, 16])
def test_evaluation_covers_the_whole_split_once(batch_size):
    state, _ = make()
    metrics = make_evaluate(Text(), batch_size, text_bytes=100)(state.model)
    table = np.asarray(state.model.embedding[...], np.float64) @ np.asarray(state.model.kernel[...], np.float64)
    (rows,) = Text().evaluation_batches(16)
    logits = table[rows.tokens]
    target_logits = np.take_along_axis(logits, rows.targets[..., None], -1)[..., 0]
    nats = ((np.log(np.exp(logits).sum(-1)) - target_logits) * rows.weights).sum()
    assert metrics["tokens"] == 10 * T + 2
    np.testing.assert_allclose(metrics["loss"], nats / metrics["tokens"], rtol=FORWARD["float32"])
    np.testing.assert_allclose(metrics["bits_per_byte"], nats / np.log(2) / 100, rtol=FORWARD["float32"])


def test_an_empty_split_is_an_error():
    class Empty:
        def evaluation_batches(self, batch_size):
            return iter(())

    with pytest.raises(ValueError, match="source: expected a split with at least one token to predict"):
        make_evaluate(Empty(), B)(make()[0].model)
    with pytest.raises(ValueError, match="text_bytes: expected an int >= 1, got 0"):
        make_evaluate(Text(), B, text_bytes=0)


def test_few_batches_are_in_flight(monkeypatch):
    """All at once would fill the memory, and a signal would be noticed only after the last of them."""
    waited, dispatched = [], []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)

    class Split:
        def evaluation_batches(self, batch_size):
            for index in range(20):
                dispatched.append(index)
                assert len(waited) >= index - IN_FLIGHT
                yield jnp.ones((batch_size, 8))

    def one_nat(model, batch):
        return Losses(objective=batch.sum(), nats=batch.sum(), weight=batch.sum())

    assert make_evaluate(Split(), 4, evaluate_step=one_nat)(None)["loss"] == 1.0
    assert len(dispatched) == 20
