"""E2: five ways to say where a word stands, the same shapes, and what happens when two words change places."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments import learn
from experiments.inside_a_transformer.config import PassConfig
from jax_attention import models

POSITIONS = ("sinusoidal", "learned", "rotary", "alibi", "none")


class Told(NamedTuple):
    """Shapes with this scheme, and how far the last row moves when the first two words change places, as a share of
    what the block adds to it.
    """

    embedded: tuple[int, ...]
    output: tuple[int, ...]
    moved: float


def run(config: PassConfig, length: int) -> dict[str, Told]:
    """The same random model of one block with each scheme.

    One block, because a second one could tell: behind a causal mask, row t has seen t + 1 words.
    """
    ids = np.arange(length)
    both = np.stack([ids, np.append([1, 0], ids[2:])])
    return {name: told(config, name, both) for name in POSITIONS}


def told(sizes: PassConfig, position: str, both: np.ndarray) -> Told:
    """One scheme on the sentence `both[0]` and the swapped one `both[1]`."""
    config = models.LMConfig(
        vocab_size=both.shape[-1],
        context=64,
        width=sizes.words_width,
        depth=1,
        num_heads=sizes.words_heads,
        position=position,
    )

    @jax.jit
    def embedded_and_output(model: models.TransformerLM) -> tuple[jax.Array, jax.Array]:
        hidden = model(both, capture=models.Capture(hidden="all")).captured.hidden
        return hidden[-1], hidden[0]

    model = learn.start(lambda rng: models.TransformerLM(config, rngs=nnx.Rngs(rng)), jax.random.key(sizes.seed))
    before, after = map(np.asarray, embedded_and_output(model))
    moved = np.abs(after[0, -1] - after[1, -1]).max() / np.abs(after[0, -1] - before[0, -1]).max()
    return Told(before[0].shape, after[0].shape, float(moved))
