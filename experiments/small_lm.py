"""The small language model of the experiments that change one thing of it: config, text, training, loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from experiments.seed_training import TrainedModel, TrainingConfig, train_seeds
from jax_attention import data, models, training


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model, `context` bytes in a row of training, and about `text_bytes` of text in all."""

    context: int = 64
    width: int = 64
    depth: int = 2
    heads: int = 4
    text_bytes: int = 2_000_000


def read_corpus(sizes: Sizes, text: Any = ()) -> data.Corpus:
    """Bytes of a file or of documents; without either, whole source files of Python's standard library."""
    if isinstance(text, Sequence) and not isinstance(text, str) and not text:
        text = data.standard_library_corpus(max_bytes=sizes.text_bytes)
    return data.prepare(text, tokenizer="bytes", length=sizes.context)


def base_config(sizes: Sizes) -> models.LMConfig:
    """Decoder without biases: RMS norm, GELU, rotary positions, and the default attention rule."""
    return models.LMConfig(
        vocab_size=data.Bytes().vocab_size,
        context=sizes.context,
        width=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        position="rotary",
        norm="rms",
        use_bias=False,
    )


def train_language_model(
    model_config: models.LMConfig, corpus: data.Corpus, config: TrainingConfig
) -> list[TrainedModel]:
    """Train from every seed. Equal seeds give equal batches and equal initial kernels, whatever the attention rule."""

    def create(rng: jax.Array) -> models.TransformerLM:
        return models.create(model_config, rng)

    return train_seeds(create, corpus.train, config, training.language_model_loss)


def token_losses(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Loss of each target in nats, `[...]`, from logits `[..., V]`."""
    loss = jax.vmap(lambda z, target: training.cross_entropy(lambda h: h, z[None], target[None]).nats)
    return loss(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).reshape(targets.shape)
