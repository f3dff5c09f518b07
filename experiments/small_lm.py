"""The small language model that experiments change one thing of, its text, and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from experiments.learn import Learned, Schooling, learn
from jax_attention import data, models, training


@dataclass(frozen=True)
class Sizes:
    """Of the model and its text: `context` bytes in a row of training, about `text_bytes` of text in all."""

    context: int = 64
    width: int = 64
    depth: int = 2
    heads: int = 4
    text_bytes: int = 2_000_000


def read(sizes: Sizes, text: Any = ()) -> data.Corpus:
    """Bytes of a file or of documents; of sources of Python's standard library, whole files, if none is given."""
    if isinstance(text, Sequence) and not isinstance(text, str) and not text:
        text = data.standard_library_corpus(max_bytes=sizes.text_bytes)
    return data.prepare(text, tokenizer="bytes", length=sizes.context)


def base(sizes: Sizes) -> models.LMConfig:
    """A decoder without biases: RMS norm, GELU, and everything of the rule at its default but rotary positions."""
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


def trained(config: models.LMConfig, corpus: data.Corpus, schooling: Schooling) -> list[Learned]:
    """From every seed. A seed gives the same batches, and kernels the same start, whatever the config's rule."""
    create = lambda rng: models.create(config, rng)  # noqa: E731
    return learn(create, corpus.train, schooling, training.language_model_loss)


def loss_of(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Nats of each target, `[...]`."""
    each = jax.vmap(lambda z, target: training.cross_entropy(lambda h: h, z[None], target[None]).nats)
    return each(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)).reshape(targets.shape)
