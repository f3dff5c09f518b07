"""Evaluation: the whole validation split once, and an empty one is an error."""

from __future__ import annotations

import numpy as np
import pytest

from jax_attention.training.evaluation import make_evaluate
from tests.support.tolerances import FORWARD
from tests.training.tiny import B, T, Text, make


@pytest.mark.parametrize("batch_size", [4, 16])
def test_evaluation_covers_the_whole_split_once(batch_size):
    state, _ = make()
    found = make_evaluate(Text(), batch_size, text_bytes=100)(state.model)
    table = np.asarray(state.model.embedding[...], np.float64) @ np.asarray(state.model.kernel[...], np.float64)
    (rows,) = Text().evaluation_batches(16)
    logits = table[rows.tokens]
    chosen = np.take_along_axis(logits, rows.targets[..., None], -1)[..., 0]
    nats = ((np.log(np.exp(logits).sum(-1)) - chosen) * rows.weights).sum()
    assert found["tokens"] == 10 * T + 2
    np.testing.assert_allclose(found["loss"], nats / found["tokens"], rtol=FORWARD["float32"])
    np.testing.assert_allclose(found["bits_per_byte"], nats / np.log(2) / 100, rtol=FORWARD["float32"])


def test_an_empty_split_is_an_error():
    class Empty:
        def evaluation_batches(self, batch_size):
            return iter(())

    with pytest.raises(ValueError, match="source: expected a split with at least one token to predict"):
        make_evaluate(Empty(), B)(make()[0].model)
    with pytest.raises(ValueError, match="text_bytes: expected an int >= 1, got 0"):
        make_evaluate(Text(), B, text_bytes=0)
