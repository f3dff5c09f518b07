"""The sentences, the layers, and their training from all seeds at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jax_attention import attend, attention_weights, nn, scores

QUERY_WORD, KEY_WORD = "写", "代码"
"""Words whose attention weight is reported."""


@dataclass(frozen=True)
class Config:
    """Two sentences, the size of a word's vector, and the training."""

    sentences: tuple[tuple[str, ...], ...] = (("我", "喜欢", "写", "代码"), ("我", "喜欢", "读", "书"))
    size: int = 16
    heads: int = 4
    steps: int = 4000
    learning_rate: float = 1e-2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    words_seed: int = 7

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Each word once, in the order of the text."""
        return tuple(dict.fromkeys(word for sentence in self.sentences for word in sentence))


SMALL = Config(steps=1000, learning_rate=2e-2, seeds=(4, 5))
"""Two seeds that leave the plateau near 0.05 within 1000 steps; seeds 0 and 3 stay on it for longer."""


class TrainedLayer(NamedTuple):
    """One kind of layer over all seeds: losses `[seeds, steps + 1]`, maps `[seeds, sentences, heads, T, T]`."""

    losses: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def loss_ratios(self) -> np.ndarray:
        """First loss divided by the last, `[seeds]`."""
        return self.losses[:, 0] / self.losses[:, -1]


class Results(NamedTuple):
    """Map and loss without parameters, and the trained layers by name."""

    free_weights: np.ndarray
    free_loss: float
    trained: dict[str, TrainedLayer]


def embed(config: Config) -> jax.Array:
    """The sentences as vectors `[sentences, T, size]`: one random, untrained vector for each word."""
    table = jax.random.normal(jax.random.key(config.words_seed), (len(config.vocabulary), config.size))
    return table[jnp.array([[config.vocabulary.index(word) for word in row] for row in config.sentences])]


def one_head(config: Config, rng: jax.Array) -> nn.SelfAttention:
    """A2: self-attention with four matrices."""
    return nn.SelfAttention(config.size, rngs=nnx.Rngs(rng))


def several_heads(config: Config, rng: jax.Array) -> nn.MultiHeadAttention:
    """A5: self-attention by several heads, each `size / heads` wide."""
    return nn.MultiHeadAttention(config.heads, config.size, use_bias=False, rngs=nnx.Rngs(rng))


LAYERS: dict[str, Callable[[Config, jax.Array], Any]] = {"one head": one_head, "several heads": several_heads}


def run(config: Config | None = None) -> Results:
    """Evaluate A1, then train both layers from every seed."""
    config = Config() if config is None else config
    x = embed(config)
    output, weights = jax.jit(attend_without_parameters)(x)
    trained = {name: train(config, make, x) for name, make in LAYERS.items()}
    return Results(np.asarray(weights), float(reconstruction_loss(output, x)), trained)


def attend_without_parameters(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A1: output softmax(X X^T) X, and its weights."""
    return attend(x, x, x, score=scores.dot()), attention_weights(x, x, x, score=scores.dot())


def reconstruction_loss(output: jax.Array, x: jax.Array) -> jax.Array:
    """Mean squared difference between output and input."""
    return jnp.mean(jnp.square(output - x))


def train(config: Config, make: Callable[[Config, jax.Array], Any], x: jax.Array) -> TrainedLayer:
    """Train a layer from every seed by Adam.

    The rate is constant for three quarters of the steps and then falls along a cosine. With a cosine from the first
    step, seed 0 stays on a plateau near 0.045; the jumps of a constant rate end it (see LOG.md).
    """
    constant_steps = 3 * config.steps // 4
    decay = optax.cosine_decay_schedule(config.learning_rate, config.steps - constant_steps)
    rate = optax.join_schedules([optax.constant_schedule(config.learning_rate), decay], [constant_steps])
    optimizer = optax.adam(rate)

    def train_from(rng: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        initial = make(config, rng)

        def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
            layer, state = carry
            loss, gradient = jax.value_and_grad(lambda layer: reconstruction_loss(layer(x), x))(layer)
            updates, state = optimizer.update(gradient, state, layer)
            return (optax.apply_updates(layer, updates), state), loss

        (final, _), losses = jax.lax.scan(step, (initial, optimizer.init(initial)), length=config.steps)
        losses = jnp.append(losses, reconstruction_loss(final(x), x))
        return losses, attention_maps(initial, x), attention_maps(final, x)

    keys = jnp.stack([jax.random.key(seed) for seed in config.seeds])
    return TrainedLayer(*map(np.asarray, jax.jit(jax.vmap(train_from))(keys)))


def attention_maps(layer: Any, x: jax.Array) -> jax.Array:
    """Attention weights `[sentences, heads, T, T]`; a layer with one head gets a head axis of length 1."""
    weights = layer.weights(x)
    return weights if weights.ndim == 4 else weights[:, None]


def weight_between_words(config: Config, weights: np.ndarray) -> np.ndarray:
    """Weight that `QUERY_WORD` gives to `KEY_WORD`, `[..., heads]`, from maps `[..., sentences, heads, T, T]`."""
    number = next(i for i, sentence in enumerate(config.sentences) if {QUERY_WORD, KEY_WORD} <= set(sentence))
    query, key = (config.sentences[number].index(word) for word in (QUERY_WORD, KEY_WORD))
    return weights[..., number, :, query, key]
