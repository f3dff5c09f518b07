"""E2: five position schemes, their shapes, and the effect of two swapped words."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments import seed_training
from experiments.inside_a_transformer.config import PassConfig
from jax_attention import models

POSITIONS = ("sinusoidal", "learned", "rotary", "alibi", "none")


class SchemeResults(NamedTuple):
    """Shapes with a position scheme, and the effect of swapping the first two words.

    `moved` is the change of the last row, divided by what the block adds to it.
    """

    embedded: tuple[int, ...]
    output: tuple[int, ...]
    moved: float


def run(config: PassConfig, length: int) -> dict[str, SchemeResults]:
    """Swap two words in a random model of one block, with each scheme.

    A second block could tell the order even without positions: under a causal mask, row t attends to t + 1 words.
    """
    ids = np.arange(length)
    rows = np.stack([ids, np.append([1, 0], ids[2:])])
    return {name: swap_words(config, name, rows) for name in POSITIONS}


def swap_words(sizes: PassConfig, position: str, rows: np.ndarray) -> SchemeResults:
    """Compare one scheme on the sentence `rows[0]` and on the swapped sentence `rows[1]`."""
    config = models.LMConfig(
        vocab_size=rows.shape[-1],
        context=64,
        width=sizes.words_width,
        depth=1,
        num_heads=sizes.words_heads,
        position=position,
    )

    @jax.jit
    def embedded_and_output(model: models.TransformerLM) -> tuple[jax.Array, jax.Array]:
        hidden = model(rows, capture=models.Capture(hidden="all")).captured.hidden
        return hidden[-1], hidden[0]

    model = seed_training.initial_model(
        lambda rng: models.TransformerLM(config, rngs=nnx.Rngs(rng)), jax.random.key(sizes.seed)
    )
    before, after = map(np.asarray, embedded_and_output(model))
    moved = np.abs(after[0, -1] - after[1, -1]).max() / np.abs(after[0, -1] - before[0, -1]).max()
    return SchemeResults(before[0].shape, after[0].shape, float(moved))
