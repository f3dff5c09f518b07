"""The cat sat on the mat: what does *sat* look at in a trained model, and does it need what it looks at?

Question: an encoder learns to guess hidden words of sentences in which animal and place together decide the verb. In a
          sentence that it never saw, how are the weights of *sat* spread over the six words, and which does it need?
Command:  python -m experiments.cat_sat
Time:     60 seconds of CPU time.
Result:   [mask] gives cat 0.26 to 0.47 and mat 0.49 to 0.51 (mean of two heads, five seeds), sat itself 0.23 to 0.40
          and 0.35 to 0.51. All 228 sentences with new pairs are completed rightly; without cat 0.28 of them, without
          mat 0.24, without any other word all; without attention 0.05 to 0.09.

One block, so that one map of each head is the only way from word to word. Three kinds: softmax; sigmoid, whose weights
need not sum to 1; and "alone", in which each word sees itself only. *sat* is judged twice: as `[mask]`, which must be
guessed, and as the word itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cat_sat import sentences
from experiments.cat_sat.sentences import SENTENCE, VERB, WORDS
from experiments.learn import Learned, Schooling, learn
from jax_attention import models, normalizers, training
from jax_attention.cache import EMPTY

HIDDEN = (0, 1, 3, 4, 5)
"""The places that are hidden in turn: all but the verb's own."""
EXCHANGED = {"cat": "hen", "mat": "hill", "on": "near"}
"""What is put in the place of a word of the sentence."""


@dataclass(frozen=True)
class Config:
    """Sizes of the block, the bias of the sigmoid (-log 6: its weights sum to about 1 at first), the training."""

    width: int = 32
    heads: int = 2
    bias: float = -1.8
    schooling: Schooling = field(default_factory=lambda: Schooling(1500, learning_rate=5e-3, seeds=(0, 1, 2, 3, 4)))


SMALL = Config(schooling=Schooling(steps=500, learning_rate=5e-3, seeds=(0, 1)))


class Looked(NamedTuple):
    """One trained model at the sentence, with `[mask]` and with *sat* (first axis of two), and at held-out ones."""

    weights: np.ndarray
    """Of the verb's place over the six words, `[2, heads, 6]`."""
    mixed: np.ndarray
    """What attention makes there of all six, `[2, width]`."""
    sure: np.ndarray
    """The probability of *sat* for `[mask]`: with all words, then with each of `HIDDEN` hidden."""
    right: np.ndarray
    """The share of masked verbs of all held-out sentences that are guessed, likewise."""
    instead: tuple[str, ...]
    """The guess when a word is exchanged, as in `EXCHANGED`."""


def alone(q_pos: Any, k_pos: Any) -> Any:
    """A mask: every word sees itself."""
    return q_pos == k_pos


def kinds(config: Config) -> dict[str, models.LMConfig]:
    """The encoders that are compared, of equal sizes."""
    softmax = models.LMConfig(
        vocab_size=len(WORDS), context=6, width=config.width, depth=1, num_heads=config.heads, mask=None
    )
    sigmoid = softmax.replace(normalize=normalizers.sigmoid(config.bias))
    return {"softmax": softmax, "sigmoid": sigmoid, "alone": softmax.replace(mask=alone)}


def run(config: Config | None = None) -> dict[str, list[Looked]]:
    """Every kind, from every seed."""
    config = Config() if config is None else config
    source = sentences.Cloze(sentences.sentences(held_out=False))
    return {name: [looked(made) for made in trained(kind, source, config)] for name, kind in kinds(config).items()}


def trained(kind: models.LMConfig, source: sentences.Cloze, config: Config) -> list[Learned]:
    """One kind from every seed; a cloze has the loss of a language model, at the words that are asked for."""
    return learn(lambda rng: models.create(kind, rng), source, config.schooling, training.language_model_loss)


def looked(made: Learned) -> Looked:
    """All that is measured of one model."""
    model = made.model
    sentence, held_out = np.array([sentences.ids(SENTENCE)]), sentences.sentences(held_out=True)
    weights, mixed = _weights_and_mixed(model, np.concatenate([sentences.masked(sentence), sentence]))
    rows = np.concatenate([sentence, exchanged(), held_out])  # all at once, so that one program guesses
    guesses = np.stack([guess(model, rows, place) for place in (None, *HIDDEN)])
    likeliest = sentences.VERB_IDS[guesses.argmax(-1)]
    _, after_exchange, of_held_out = np.split(likeliest, [1, 1 + len(EXCHANGED)], axis=1)
    sat = sentences.VERB_IDS.tolist().index(WORDS.index("sat"))
    return Looked(
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


def guess(model: models.TransformerLM, rows: np.ndarray, hidden: int | None = None) -> np.ndarray:
    """The probability of each verb `[rows, 16]` where the verb is masked, and perhaps one place is seen by nobody.

    A hidden word loses its place too, so the verb's own cannot be hidden this way: it would ask from somewhere else.
    """
    places = np.arange(rows.shape[1])
    places = np.where(places == hidden, EMPTY, places)
    logits = _verb_logits(model, jnp.asarray(sentences.masked(rows)), jnp.asarray(np.broadcast_to(places, rows.shape)))
    return np.asarray(jax.nn.softmax(logits[:, sentences.VERB_IDS]))


@jax.jit
def _verb_logits(model: models.TransformerLM, tokens: jax.Array, places: jax.Array) -> jax.Array:
    return model(tokens, positions=places).logits[:, VERB]


def exchanged() -> np.ndarray:
    """The sentence after each exchange, as ids `[exchanges, 6]`."""
    rows = [[new if word == old else word for word in SENTENCE] for old, new in EXCHANGED.items()]
    return np.array([sentences.ids(tuple(row)) for row in rows])
