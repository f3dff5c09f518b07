"""An encoder of patches and a decoder that writes words while it looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.digits.descriptions import WORDS, Described
from experiments.learn import Learned, Schooling, learn
from jax_attention import models
from jax_attention.cache import EMPTY

PATCHES = 16
SEES = {"apart": "each patch sees itself", "together": "patches see each other"}
"""What the encoder is allowed, by the name of the kind."""


@dataclass(frozen=True)
class Sizes:
    """Of both halves, which have one block each."""

    width: int = 48
    heads: int = 4
    dropout: float = 0.1


class Batch(NamedTuple):
    """What `training.seq2seq_loss` asks for, with images for a source."""

    source: np.ndarray
    source_positions: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class Pictures:
    """Batches of images with their descriptions; without images all patches are hidden, and the words go on alone."""

    def __init__(self, given: Described, seen: bool = True) -> None:
        self.given, self.seen = given, seen

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Rows drawn with replacement."""
        chosen = np.random.default_rng((seed, step)).integers(len(self.given.images), size=batch_size)
        places = np.arange(PATCHES) if self.seen else np.full(PATCHES, EMPTY)
        words = self.given.words[chosen]
        tokens, targets = words[:, :-1], words[:, 1:]
        places = np.broadcast_to(places, (batch_size, PATCHES)).astype(np.int32)
        return Batch(self.given.images[chosen], places, tokens, targets, np.ones(tokens.shape, np.float32))


def alone(q_pos: Any, k_pos: Any) -> Any:
    """A mask: every patch sees itself."""
    return q_pos == k_pos


class Describer(nnx.Module):
    """Patches as the memory of a language model."""

    def __init__(self, sizes: Sizes, together: bool, *, rngs: nnx.Rngs):
        shared: dict[str, Any] = {
            "width": sizes.width,
            "depth": 1,
            "num_heads": sizes.heads,
            "dropout": sizes.dropout,
        }
        encoder = models.LMConfig(vocab_size=1, mask=None if together else alone, **shared)
        decoder = models.LMConfig(vocab_size=len(WORDS), context=8, memory_size=sizes.width, **shared)
        self.encoder = models.PatchEncoder(encoder, image=(8, 8, 1), patch=(2, 2), rngs=rngs)
        self.decoder = models.TransformerLM(decoder, rngs=rngs)

    def given(self, source: Any, *, positions: Any = None, rng: Any = None) -> models.ConditionedDecoder:
        """The language model of these images; patches at position `EMPTY` are seen by no word."""
        return models.ConditionedDecoder(
            self.decoder, self.decoder.project_memory(self.encoder(source, rng=rng), positions)
        )

    def hidden(self, source: Any, tokens: Any, *, source_positions: Any = None, rng: Any = None) -> jax.Array:
        """What the head sees, teacher forced."""
        first, second = (None, None) if rng is None else jax.random.split(rng)
        return self.condition(source, positions=source_positions, rng=first).hidden(tokens, rng=second)[0]

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)


def trained(sizes: Sizes, source: Pictures, schooling: Schooling, together: bool) -> list[Learned]:
    """The same model from every seed."""
    return learn(lambda rng: Describer(sizes, together, rngs=nnx.Rngs(rng)), source, schooling)


class Told(NamedTuple):
    """The likeliest word behind each given one `[N, 6]`, and what it looks at, mean of the heads, `[N, 6, 16]`."""

    words: np.ndarray
    maps: np.ndarray


def told(model: Describer, images: np.ndarray, words: np.ndarray, places: np.ndarray | None = None) -> Told:
    """Teacher forced: each word is guessed behind the true ones."""
    places = np.broadcast_to(np.arange(PATCHES), (len(images), PATCHES)) if places is None else places
    return Told(*map(np.asarray, _told(model, images, jnp.asarray(words[:, :-1]), places.astype(np.int32))))


@jax.jit
def _told(model: Describer, images: jax.Array, tokens: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array]:
    out = model.condition(images, positions=places)(tokens, capture=models.Capture(cross=(0,)))
    return out.logits.argmax(-1), out.captured.cross[0].mean(-3)
