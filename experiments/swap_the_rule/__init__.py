"""One small language model, one field of its attention rule changed at a time.

Question: which scores, normalizers, positions and windows change what a small language model learns, by how much, what
          do they cost, and how widely does it then look?
Command:  python -m experiments.swap_the_rule
Time:     7 minutes of CPU time.
Result:   an unscaled dot product, cosine, l2, normed queries and keys, sinks, entmax, sparsemax and windows of 16 stay
          within 0.03 of the base's 2.27 nats per byte, as seeds do. Clearly worse: sigmoid +0.07, ALiBi +0.09,
          relu +0.14, additive +0.14 (0.56 of the speed), T5 +0.16, no positions +0.20, learned ones +0.20, uniform
          weights +0.23, a window of 1 +0.35, sinusoids +0.70, which drown embeddings of size 0.02.

Every variant is `dataclasses.replace(base, ...)`: the same sizes, text, steps, rate and seeds. A seed gives the same
batches and the same first numbers in all kernels, so differences to the base are taken seed by seed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import small_lm
from experiments.learn import Learned, Schooling
from experiments.small_lm import Sizes
from experiments.swap_the_rule.speed import step_seconds
from experiments.swap_the_rule.variants import BASE, NAMES, changed
from jax_attention import data, models, viz

LOOKED_AT = 64
"""So many windows of held-out text have their maps looked at."""


@dataclass(frozen=True)
class Config:
    """Sizes, training, which variants; windows of held-out text, and rounds of timing."""

    sizes: Sizes = field(default_factory=Sizes)
    schooling: Schooling = field(default_factory=lambda: Schooling(steps=300, batch_size=12, learning_rate=3e-3))
    variants: tuple[str, ...] = NAMES
    held_out: int = 512
    rounds: int = 40

    def models(self) -> dict[str, models.LMConfig]:
        """The config of each variant, the base first."""
        base = small_lm.base(self.sizes)
        names = (BASE, *(name for name in self.variants if name != BASE))
        return {name: dataclasses.replace(base, **changed(name, base)) for name in names}


SMALL = Config(
    schooling=Schooling(steps=60, batch_size=12, learning_rate=3e-3, seeds=(0, 1)),
    variants=(BASE, "cosine, scale 8", "sigmoid", "alibi", "window 1"),
    held_out=64,
    rounds=5,
)


class Variant(NamedTuple):
    """Of one variant by seed: losses in nats per byte `[seeds]`, entropies and sums of rows `[seeds, layers, heads]`.

    The entropy is that of rows divided by their sums; `seconds` `[rounds]` are those of a training step.
    """

    first: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    entropy: np.ndarray
    sums: np.ndarray
    seconds: np.ndarray


class Results(NamedTuple):
    """All variants by name, and the entropy of rows that look at all earlier bytes alike."""

    variants: dict[str, Variant]
    widest: float


def run(config: Config | None = None, text: Any = ()) -> Results:
    """Train every variant from every seed, judge each on the same held-out windows, then time all of them in turn."""
    config = Config() if config is None else config
    corpus = small_lm.read(config.sizes, text)
    windows = corpus.validation.batch(seed=0, step=0, batch_size=config.held_out)
    found = {}
    for name, model in config.models().items():
        found[name] = judged(small_lm.trained(model, corpus, config.schooling), windows)
    seconds = step_seconds(config.models(), corpus, config.schooling, config.rounds)
    widest = float(np.mean(np.log(np.arange(1, config.sizes.context + 1))))
    return Results({name: Variant(*parts, seconds[name]) for name, parts in found.items()}, widest)


def judged(learned: list[Learned], windows: data.Batch) -> tuple[np.ndarray, ...]:
    """First and last loss in training, loss on the windows, entropies and sums of the rows of all maps; by seed."""

    @jax.jit
    def look(model: models.TransformerLM, tokens: jax.Array, targets: jax.Array) -> tuple[jax.Array, Any]:
        out = model(tokens, capture=models.Capture(weights="all"))
        return small_lm.loss_of(out.logits, targets).mean(), out.captured.weights

    rows = []
    for each in learned:
        loss, weights = look(each.model, windows.tokens, windows.targets)
        layers = [np.asarray(weights[n][:LOOKED_AT], np.float64) for n in sorted(weights)]
        last = each.losses[-max(len(each.losses) // 10, 1) :].mean()
        rows.append((each.losses[0], last, float(loss), *spread(np.stack(layers))))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def spread(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy of the rows divided by their sums, and the mean sum, `[L, N]`, of maps `[L, B, N, T, S]`."""
    maps = np.moveaxis(maps, 1, 2)
    maps = maps.reshape(*maps.shape[:2], -1, maps.shape[-1])
    sums = maps.sum(-1, keepdims=True)
    return viz.head_entropy(maps / np.where(sums > 0, sums, 1)), sums.mean((-2, -1))
