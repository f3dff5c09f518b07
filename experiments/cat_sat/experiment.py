"""Config of the experiment, the three encoders, their training and all measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cat_sat import sentences
from experiments.cat_sat.sentences import SENTENCE, VERB, WORDS
from experiments.seed_training import TrainedModel, TrainingConfig, train_seeds
from jax_attention import models, normalizers, training
from jax_attention.cache import EMPTY

HIDDEN = (0, 1, 3, 4, 5)
"""Positions that are hidden in turn: all but that of the verb."""
EXCHANGED = {"cat": "hen", "mat": "hill", "on": "near"}
"""Words of the sentence and their replacements, one exchange at a time."""


@dataclass(frozen=True)
class Config:
    """Sizes of the block, bias of the sigmoid, training.

    The bias is about -log 6: at scores of 0 the sigmoid weights of six words then sum to about 1.
    """

    width: int = 32
    heads: int = 2
    bias: float = -1.8
    schooling: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(1500, learning_rate=5e-3, seeds=(0, 1, 2, 3, 4))
    )


SMALL = Config(schooling=TrainingConfig(steps=500, learning_rate=5e-3, seeds=(0, 1)))


class ModelResults(NamedTuple):
    """Measurements of one trained model; a first axis of two is for the sentence with `[mask]`, then with *sat*.

    weights: weights of the verb over the six words, `[2, heads, 6]`.
    mixed: output of attention for the verb, `[2, width]`.
    probability: probability of *sat* for `[mask]`, with all words visible, then without each word of `HIDDEN`.
    right: share of all held-out sentences whose masked verb is guessed, in the same cases.
    after_exchange: guess after each exchange of `EXCHANGED`.
    """

    weights: np.ndarray
    mixed: np.ndarray
    probability: np.ndarray
    right: np.ndarray
    after_exchange: tuple[str, ...]


def self_only(q_pos: Any, k_pos: Any) -> Any:
    """Mask that lets every word attend to itself only."""
    return q_pos == k_pos


def kinds(config: Config) -> dict[str, models.LMConfig]:
    """Configs of the three encoders, which have equal sizes."""
    softmax = models.LMConfig(
        vocab_size=len(WORDS), context=6, width=config.width, depth=1, num_heads=config.heads, mask=None
    )
    sigmoid = softmax.replace(normalize=normalizers.sigmoid(config.bias))
    return {"softmax": softmax, "sigmoid": sigmoid, "alone": softmax.replace(mask=self_only)}


def run(config: Config | None = None) -> dict[str, list[ModelResults]]:
    """Train and measure every kind from every seed."""
    config = Config() if config is None else config
    source = sentences.ClozeBatches(sentences.sentences(held_out=False))
    return {
        name: [measure_model(run) for run in train_encoder(kind, source, config)]
        for name, kind in kinds(config).items()
    }


def train_encoder(kind: models.LMConfig, source: sentences.ClozeBatches, config: Config) -> list[TrainedModel]:
    """Train one kind from every seed by the loss of a language model, weighted 1 at the words to guess."""
    return train_seeds(lambda rng: models.create(kind, rng), source, config.schooling, training.language_model_loss)


def measure_model(trained: TrainedModel) -> ModelResults:
    """Run all measurements of one model."""
    model = trained.model
    sentence, held_out = np.array([sentences.ids(SENTENCE)]), sentences.sentences(held_out=True)
    weights, mixed = _weights_and_mixed(model, np.concatenate([sentences.mask_verb(sentence), sentence]))
    rows = np.concatenate([sentence, exchanged_sentences(), held_out])  # one batch, so that one program is compiled
    guesses = np.stack([guess_verbs(model, rows, position) for position in (None, *HIDDEN)])
    likeliest = sentences.VERB_IDS[guesses.argmax(-1)]
    _, after_exchange, of_held_out = np.split(likeliest, [1, 1 + len(EXCHANGED)], axis=1)
    sat = sentences.VERB_IDS.tolist().index(WORDS.index("sat"))
    return ModelResults(
        np.asarray(weights[:, :, VERB]),
        np.asarray(mixed[:, VERB]),
        guesses[:, 0, sat],
        np.mean(of_held_out == held_out[:, VERB], axis=-1),
        tuple(WORDS[verb] for verb in after_exchange[0]),
    )


@jax.jit
def _weights_and_mixed(model: models.TransformerLM, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    out = model(tokens, capture=models.Capture(weights="all", hidden=(-1,)))
    block = model.blocks.layers()[0]
    return out.captured.weights[0], block.attention(block.attention_norm(out.captured.hidden[-1]))


def guess_verbs(model: models.TransformerLM, rows: np.ndarray, hidden: int | None = None) -> np.ndarray:
    """Probability of each verb `[rows, 16]` at the masked verb; no word attends to position `hidden`.

    The verb's position cannot be hidden this way: a word at position `EMPTY` loses its learned position too, so the
    verb would query from somewhere else.
    """
    positions = np.arange(rows.shape[1])
    positions = np.where(positions == hidden, EMPTY, positions)
    tokens = jnp.asarray(sentences.mask_verb(rows))
    logits = _verb_logits(model, tokens, jnp.asarray(np.broadcast_to(positions, rows.shape)))
    return np.asarray(jax.nn.softmax(logits[:, sentences.VERB_IDS]))


@jax.jit
def _verb_logits(model: models.TransformerLM, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    return model(tokens, positions=positions).logits[:, VERB]


def exchanged_sentences() -> np.ndarray:
    """The sentence after each exchange, as ids `[exchanges, 6]`."""
    rows = [[new if word == old else word for word in SENTENCE] for old, new in EXCHANGED.items()]
    return np.array([sentences.ids(tuple(row)) for row in rows])
