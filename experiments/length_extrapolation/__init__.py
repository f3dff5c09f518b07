"""A language model reads beyond the length that it was trained on, under several position schemes.

Question: trained on rows of 64 bytes, what does a small language model lose at each position up to 512, by its scheme
          of positions, and do the known changes to rotary positions or a window help it, without further training?
Command:  python -m experiments.length_extrapolation
Time:     200 seconds of CPU time.
Result:   nats per byte at positions 32 to 63, then at 256 to 511: rotary 2.01, 2.88 (it breaks after 128), sinusoidal
          2.35, 2.95 (at once), ALiBi 2.16, 2.18, T5 2.26, 2.47, none 2.37, 2.51. Rotary with a window of 64 when it
          reads: 2.01, 2.05. Scaled frequencies without further training do not restore the trained loss.

All models are causal, so one reading of long windows gives the loss at every length up to theirs: what stands at
position t is what a row of t + 1 bytes ends with. Only dynamic scaling knows the length of the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import small_lm
from experiments.learn import Learned, Schooling
from experiments.small_lm import Sizes
from jax_attention import data, models, positions

SCHEMES = ("rotary", "alibi", "t5", "sinusoidal", "none")
"""Not "learned": its table ends at the trained length, and the model refuses longer text."""
LONG = "rotary, trained long"


@dataclass(frozen=True)
class Config:
    """Sizes, training; how many times longer is read than trained, and how many held-out windows of that length."""

    sizes: Sizes = field(default_factory=Sizes)
    schooling: Schooling = field(default_factory=lambda: Schooling(steps=450, batch_size=16, learning_rate=3e-3))
    schemes: tuple[str, ...] = SCHEMES
    times: int = 8
    held_out: int = 128

    @property
    def longest(self) -> int:
        """Bytes of a window that is read."""
        return self.times * self.sizes.context


SMALL = Config(
    schooling=Schooling(steps=100, batch_size=16, learning_rate=3e-3, seeds=(0, 1)),
    schemes=("rotary", "alibi", "sinusoidal"),
    held_out=32,
)


class Reading(NamedTuple):
    """A trained scheme, and what of its config is replaced when it reads."""

    scheme: str
    changes: dict[str, Any]


def readings(config: Config) -> dict[str, Reading]:
    """Each scheme as it is; some with a window of the trained length; rotary positions with frequencies scaled."""
    length, times = config.sizes.context, float(config.times)
    scalings = {
        "linear": positions.linear_scaling(times),
        "dynamic": positions.dynamic_scaling(1.0, length),
        "yarn": positions.yarn_scaling(times, length),
    }
    found = {scheme: Reading(scheme, {}) for scheme in config.schemes}
    for scheme in ("rotary", "sinusoidal", "none"):
        found[f"{scheme}, window"] = Reading(scheme, {"windows": (length,)})
    for name, scaling in scalings.items():
        found[f"rotary, {name}"] = Reading("rotary", {"rope": positions.rotary(scaling=scaling)})
    return {name: reading for name, reading in found.items() if reading.scheme in config.schemes}


def run(config: Config | None = None, text: Any = ()) -> dict[str, np.ndarray]:
    """The loss in nats at each position of the long windows, `[seeds, times * context]`, of every reading by name.

    The last one, `LONG`, was trained on rows as long as the windows, with as many bytes in a step.
    """
    config = Config() if config is None else config
    corpus = small_lm.read(config.sizes, text)
    windows = data.Windows(corpus.validation.tokens, config.longest).batch(0, 0, config.held_out)
    curves = {}
    for scheme in config.schemes:
        learned = small_lm.trained(model_config(config, scheme), corpus, config.schooling)
        for name, reading in readings(config).items():
            if reading.scheme == scheme:
                curves[name] = by_position(learned, windows, reading.changes)
    curves[LONG] = by_position(list(trained_long(config, text)), windows, {})
    return {name: curves[name] for name in (*readings(config), LONG)}


def model_config(config: Config, scheme: str) -> models.LMConfig:
    """The small model with this scheme of positions.

    Sinusoids are about 0.7 large and embeddings start at 0.02; as in the paper, these are multiplied by sqrt(width).
    """
    return small_lm.base(config.sizes).replace(position=scheme, scale_embedding=scheme == "sinusoidal")


def trained_long(config: Config, text: Any = ()) -> Iterator[Learned]:
    """Rotary positions and rows as long as the windows; fewer of them, so that a step has as many bytes."""
    sizes = dataclasses.replace(config.sizes, context=config.longest)
    rows = max(config.schooling.batch_size // config.times, 1)
    schooling = dataclasses.replace(config.schooling, batch_size=rows)
    yield from small_lm.trained(small_lm.base(sizes), small_lm.read(sizes, text), schooling)


def by_position(learned: list[Learned], windows: data.Batch, changes: dict[str, Any]) -> np.ndarray:
    """The mean loss at each position `[seeds, T]`, with some fields of the config replaced."""
    look = jax.jit(lambda model, tokens, targets: small_lm.loss_of(model(tokens).logits, targets).mean(0))
    parts = max(len(windows.tokens) // 32, 1)
    batches = list(zip(np.split(windows.tokens, parts), np.split(windows.targets, parts), strict=True))
    curves = []
    for each in learned:
        model = read_as(each.model, context=windows.tokens.shape[-1], **changes)
        curves.append(np.mean([np.asarray(look(model, *batch), np.float64) for batch in batches], axis=0))
    return np.stack(curves)


def read_as(model: models.TransformerLM, **changes: Any) -> models.TransformerLM:
    """The same parameters under another config."""
    return models.from_dict(model.config.replace(**changes), models.to_dict(model))
