"""Cases of decoding and training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_attention import cache, data, decoding, models, training
from tests.models import small
from tests.strict_modes.attention_cases import EXCLUDES, arrays, call
from tests.strict_modes.modes import Case
from tests.strict_modes.module_cases import BOTH, SMALL, TOKENS

CONFIG = models.LMConfig(**SMALL)
WEIGHTS = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)
BATCH = data.Batch(TOKENS, TOKENS, WEIGHTS)
PAIRS = data.Seq2SeqBatch(TOKENS, np.array([[0, 1, 2, 3], [0, 1, 2, cache.EMPTY]], np.int32), TOKENS, TOKENS, WEIGHTS)
HISTORY = decoding.History(
    tokens=TOKENS,
    lengths=np.array([4, 3], np.int32),
    step=jnp.int32(1),
    stop_tokens=TOKENS[0],
    seen=np.arange(2 * small.VOCABULARY).reshape(2, -1) % 3 == 0,
)


def a_model() -> models.TransformerLM:
    return models.create(CONFIG)


def transformed(transform: Any, excepted: tuple = EXCLUDES) -> Case:
    """A transform of logits."""
    return call(lambda x: transform(x, HISTORY), arrays((2, small.VOCABULARY)), excepted)


CHOICES = "a loop whose length depends on the tokens chosen"


def generated(**options: Any) -> Case:
    """Tokens and their log-probabilities."""
    f = lambda m: decoding.generate(m, TOKENS, max_new_tokens=3, **options)[:4]  # noqa: E731
    return Case(a_model, f, CHOICES)


SAMPLER = decoding.sampler(decoding.temperature(0.8), decoding.top_k(5), decoding.top_p(0.9))
DECODING = {
    "decoding.generate": generated(sampler=SAMPLER, rng=jax.random.key(0)),
    "decoding.greedy": generated(sampler=decoding.greedy()),
    "decoding.beam_search": Case(
        a_model,
        lambda m: decoding.beam_search(m, TOKENS, num_beams=2, max_new_tokens=3)[:4],
        CHOICES,
        (("debug_infs", "beams that do not exist yet have the score -inf"),),
    ),
    "decoding.sampler": transformed(
        lambda x, history: (SAMPLER.logits(x, history), SAMPLER(x, history, jax.random.split(jax.random.key(0), 2)))
    ),
    "decoding.temperature": transformed(decoding.temperature(0.8), ()),
    "decoding.top_k": transformed(decoding.top_k(3)),
    "decoding.top_p": transformed(decoding.top_p(0.5)),
    "decoding.min_p": transformed(decoding.min_p(0.3)),
    "decoding.repetition_penalty": transformed(decoding.repetition_penalty(1.3), ()),
    "decoding.min_new_tokens": transformed(decoding.min_new_tokens(3)),
    "decoding.no_repeat_ngram_size": transformed(decoding.no_repeat_ngram_size(2)),
}
OPTIONS = {"label_smoothing": 0.1, "z_loss": 1e-3}


def stepped(optimizer: optax.GradientTransformation, **options: Any) -> Case:
    """A training step from the first state."""

    def step(model: models.TransformerLM) -> Any:
        state = training.init_state(model, optimizer, rng=jax.random.key(0))
        return training.make_train_step(optimizer, **options)(state, BATCH)

    return Case(a_model, step, "the step takes the gradient itself")


def made(config: training.OptimizerConfig) -> optax.GradientTransformation:
    return training.make_optimizer(config, steps=10)


TRAINING = {
    "training.language_model_loss": Case(a_model, lambda m: training.language_model_loss(m, BATCH, **OPTIONS)),
    "training.seq2seq_loss": Case(lambda: models.create(BOTH), lambda m: training.seq2seq_loss(m, PAIRS, **OPTIONS)),
    "training.cross_entropy": Case(
        arrays((2, 4, 6), (6, 7)),
        lambda x: training.cross_entropy(lambda h: h @ x[1], x[0], TOKENS % 7, WEIGHTS, **OPTIONS),
    ),
    "training.evaluate_step": Case(a_model, lambda m: training.evaluate_step(m, BATCH)),
    "training.make_train_step": stepped(optax.sgd(0.1), accumulate=2),
    "training.make_train_step, AdamW of optax": stepped(optax.adamw(0.1)),
    "training.init_state": stepped(optax.sgd(0.1)),
    "training.make_optimizer": stepped(made(training.OptimizerConfig())),
    "training.refuse_nonfinite": stepped(training.refuse_nonfinite(optax.sgd(0.1))),
    "training.make_schedule": Case(
        None, lambda: training.make_schedule(training.OptimizerConfig(), steps=10)(jnp.int32(3)), "a number of a step"
    ),
}

CASES = DECODING | TRAINING
