"""Encoder of image patches and decoder that attends to them while it writes words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.digits.descriptions import WORDS, Descriptions
from experiments.seed_training import TrainedModel, TrainingConfig, train_seeds
from jax_attention import models
from jax_attention.cache import EMPTY

PATCHES = 16
ENCODERS = {"apart": "each patch sees itself", "together": "patches see each other"}
"""Attention of the encoder, by the name of the kind."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of encoder and decoder, which have one block each."""

    width: int = 48
    heads: int = 4
    dropout: float = 0.1


class Batch(NamedTuple):
    """Batch for `training.seq2seq_loss`, with images as the source."""

    source: np.ndarray
    source_positions: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class ImageBatches:
    """Batches of images with their descriptions; all patches are masked out unless `visible`."""

    def __init__(self, descriptions: Descriptions, visible: bool = True) -> None:
        self.descriptions, self.visible = descriptions, visible

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Draw rows with replacement."""
        images, words = self.descriptions
        chosen = np.random.default_rng((seed, step)).integers(len(images), size=batch_size)
        positions = np.arange(PATCHES) if self.visible else np.full(PATCHES, EMPTY)
        words = words[chosen]
        tokens, targets = words[:, :-1], words[:, 1:]
        positions = np.broadcast_to(positions, (batch_size, PATCHES)).astype(np.int32)
        return Batch(images[chosen], positions, tokens, targets, np.ones(tokens.shape, np.float32))


def self_only(q_pos: Any, k_pos: Any) -> Any:
    """Mask that lets every patch attend to itself only."""
    return q_pos == k_pos


class ImageDescriber(nnx.Module):
    """Language model whose decoder attends to the encoded patches of an image."""

    def __init__(self, sizes: Sizes, together: bool, *, rngs: nnx.Rngs):
        shared: dict[str, Any] = {
            "width": sizes.width,
            "depth": 1,
            "num_heads": sizes.heads,
            "dropout": sizes.dropout,
        }
        encoder = models.LMConfig(vocab_size=1, mask=None if together else self_only, **shared)
        decoder = models.LMConfig(vocab_size=len(WORDS), context=8, memory_size=sizes.width, **shared)
        self.encoder = models.PatchEncoder(encoder, image=(8, 8, 1), patch=(2, 2), rngs=rngs)
        self.decoder = models.TransformerLM(decoder, rngs=rngs)

    def condition(self, source: Any, *, positions: Any = None, rng: Any = None) -> models.ConditionedDecoder:
        """Language model of the descriptions of these images; no word attends to patches at position `EMPTY`."""
        return models.ConditionedDecoder(
            self.decoder, self.decoder.project_memory(self.encoder(source, rng=rng), positions)
        )

    def hidden(self, source: Any, tokens: Any, *, source_positions: Any = None, rng: Any = None) -> jax.Array:
        """Hidden states before the output layer, teacher forced."""
        encoder_rng, decoder_rng = (None, None) if rng is None else jax.random.split(rng)
        return self.condition(source, positions=source_positions, rng=encoder_rng).hidden(tokens, rng=decoder_rng)[0]

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)


def train_describer(sizes: Sizes, source: ImageBatches, config: TrainingConfig, together: bool) -> list[TrainedModel]:
    """Train the model from every seed; with `together`, patches attend to each other."""
    return train_seeds(lambda rng: ImageDescriber(sizes, together, rngs=nnx.Rngs(rng)), source, config)


class Predictions(NamedTuple):
    """Likeliest word after each word `[N, 6]`, and its weights over the patches, means over heads, `[N, 6, 16]`."""

    words: np.ndarray
    maps: np.ndarray


def predict_words(
    model: ImageDescriber, images: np.ndarray, words: np.ndarray, positions: np.ndarray | None = None
) -> Predictions:
    """Predict each word of the descriptions after the true words before it (teacher forcing)."""
    positions = np.broadcast_to(np.arange(PATCHES), (len(images), PATCHES)) if positions is None else positions
    return Predictions(
        *map(np.asarray, _predict(model, images, jnp.asarray(words[:, :-1]), positions.astype(np.int32)))
    )


@jax.jit
def _predict(
    model: ImageDescriber, images: jax.Array, tokens: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    out = model.condition(images, positions=positions)(tokens, capture=models.Capture(cross=(0,)))
    return out.logits.argmax(-1), out.captured.cross[0].mean(-3)
