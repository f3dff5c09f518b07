"""The sequence-to-sequence loss: against its definition, and models that learn to copy a source with it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest

from jax_attention import data, models, nn, training
from jax_attention.cache import EMPTY
from tests.models import pairs, small
from tests.support.tiers import slow_except

V, START = 5, 5


class CopyBatch(NamedTuple):
    """Sources of 2 or 3 tokens, with themselves as targets."""

    source: np.ndarray
    source_positions: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @classmethod
    def make(cls, seed: int, count: int = 16):
        rng = np.random.default_rng(seed)
        source, lengths = rng.integers(0, V, (count, 3)), rng.integers(2, 4, count)
        is_real = np.arange(3) < lengths[:, None]
        tokens = np.concatenate([np.full((count, 1), START), source[:, :-1]], axis=1)
        positions = np.where(is_real, np.arange(3), EMPTY)
        return cls(source, positions, tokens, np.where(is_real, source, 0), is_real.astype(np.float32))


def rnn(**changes):
    sizes = {"source_vocab_size": V, "vocab_size": V + 1, "width": 16, "hidden_size": 32, "score": nn.Additive}
    return models.create(models.RNNConfig(**sizes | changes))


def transformer():
    sizes = {"vocab_size": V + 1, "context": 4, "width": 32, "depth": 1, "num_heads": 4}
    encoder, decoder = models.LMConfig(**sizes, mask=None), models.LMConfig(**sizes, memory_size=32)
    return models.create(models.EncoderDecoderConfig(encoder=encoder, decoder=decoder))


MODELS = {"transformer": lambda: pairs.pair("post-norm, learned", depth=1), "rnn": lambda: small.filled(rnn)}
GRID = [pytest.param(name, smoothing, id=f"{smoothing}-{name}") for smoothing in (0.0, 0.2) for name in MODELS]


@pytest.mark.parametrize(("name", "smoothing"), slow_except(["0.2-rnn"], GRID))
def test_the_loss_equals_its_definition(name, smoothing):
    batch, model = CopyBatch.make(0), MODELS[name]()

    @small.jit
    def run(model):
        logits = model(batch.source, batch.tokens, source_positions=batch.source_positions).logits
        return training.seq2seq_loss(model, batch, label_smoothing=smoothing, z_loss=0.1), logits

    losses, logits = run(model)
    logits = np.asarray(logits, np.float64)
    lse = np.log(np.exp(logits).sum(-1))
    nats = lse - np.take_along_axis(logits, batch.targets[..., None], axis=-1)[..., 0]
    smooth = (1 - smoothing) * nats + smoothing * (lse - logits.mean(-1)) + 0.1 * lse**2
    np.testing.assert_allclose(losses.nats, (batch.weights * nats).sum(), rtol=1e-5)
    np.testing.assert_allclose(losses.objective, (batch.weights * smooth).sum(), rtol=1e-5)
    assert losses.weight == batch.weights.sum()


@pytest.mark.slow
@pytest.mark.parametrize("make", [rnn, transformer])
def test_a_model_learns_to_copy(make):
    optimizer = optax.adam(5e-3)
    state = training.init_state(make(), optimizer, rng=jax.random.key(0))
    step = jax.jit(training.make_train_step(optimizer, loss=training.seq2seq_loss), donate_argnums=0)
    losses = []
    for number in range(300):
        state, metrics = step(state, CopyBatch.make(number, 32))
        losses.append(float(metrics["loss"]))
    assert abs(losses[0] - np.log(V + 1)) < 0.5
    assert np.mean(losses[-5:]) < 0.1
    held_out = jax.jit(training.seq2seq_loss)(state.model, CopyBatch.make(1000))
    assert held_out.nats / held_out.weight < 0.1


@pytest.mark.slow
def test_dropout_needs_a_rng():
    batch, model = CopyBatch.make(0), rnn(dropout=0.5)
    loss = small.jit(lambda model, rng: training.seq2seq_loss(model, batch, rng).nats)
    assert loss(model, jax.random.key(0)) != loss(model, jax.random.key(1))
    assert loss(model, None) == loss(model, None)


def test_each_loss_refuses_the_models_of_the_other():
    batch = CopyBatch.make(0)
    with pytest.raises(TypeError, match=r"model: expected one that reads a source.*language_model_loss"):
        training.seq2seq_loss(small.model("none"), batch)
    with pytest.raises(TypeError, match=r"model: expected a language model.*RNNSeq2Seq"):
        training.language_model_loss(small.filled(rnn), batch)


def test_rows_without_weight_may_hold_anything():
    batch, model = CopyBatch.make(0), small.filled(rnn)
    changed = batch._replace(targets=np.where(batch.weights > 0, batch.targets, -7))
    without_weights = changed._replace(weights=np.ones_like(batch.weights))
    loss = small.jit(lambda model, batch: training.seq2seq_loss(model, batch))
    ignoring = small.jit(lambda model, batch: training.seq2seq_loss(model, batch, ignore_index=-7))
    losses = [loss(model, batch), loss(model, changed), ignoring(model, without_weights)]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])
    assert np.isfinite(losses[0]).all()
    assert np.isnan(loss(model, without_weights).nats)


@pytest.mark.slow
def test_the_loop_counts_source_and_target_tokens():
    counts = []

    class CountingMeter(training.Meter):
        def count(self, step, tokens):
            counts.append(tokens)
            super().count(step, tokens)

    optimizer = training.make_optimizer(training.OptimizerConfig(), steps=3)
    source = data.Seq2SeqBatches([[1, 2, 3]] * 8, [[4, 3]] * 8, start=5, stop=5, multiple=1)
    training.fit(
        training.init_state(rnn(width=4, hidden_size=4), optimizer, rng=jax.random.key(0)),
        training.make_train_step(optimizer, loss=training.seq2seq_loss),
        source,
        training.LoopConfig(steps=3, batch_size=4, evaluate_every=0),
        meter=CountingMeter(),
    )
    assert counts == [4 * (3 + 3)] * len(counts)
    assert len(counts) >= 2
