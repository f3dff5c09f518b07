"""How much of a difference is rounding: the tolerance of every point, derived from the dtype, sums, and depth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention import models
from jax_attention.interop.difference import Difference, difference
from jax_attention.interop.report.points import POINTS, run_points
from jax_attention.models import Capture, LMConfig, TransformerLM
from jax_attention.models.stack import restack
from jax_attention.nn.named import filled, named

ROUNDINGS = 8
"""So many results of a part may be rounded one after the other, all the same way.
Of what this and the sums allow, sound models of every family used at most 0.3, in float32 and bfloat16; of widths up
to 1024 and depths up to 24 as well.
"""


@dataclass(frozen=True)
class Row:
    """One comparison: where, how far apart, and how far rounding may bring two right sides."""

    layer: int | None
    point: str
    difference: Difference
    allowed: float

    @property
    def used(self) -> float:
        """The part of the allowed distance that is used; NaN where there is a NaN."""
        apart = self.difference.max_abs
        return apart / self.allowed if self.allowed else (math.inf if apart else 0.0)

    @property
    def equal(self) -> bool:
        """Whether rounding explains it."""
        return bool(self.used <= 1)


@dataclass(frozen=True)
class Scale:
    """What tolerances depend on besides the numbers themselves."""

    eps: float
    positions: np.ndarray
    length: int

    def relative(self, n: int, layers: int = 1) -> float:
        """What rounding may make of one number: a few results in the dtype, and errors of a sum of n terms, which is
        made in float32 at least. Both add up as a random walk over layers.

            sqrt(layers) (8 eps + sqrt(n) min(eps, 2^-23)) / 2
        """
        return layers**0.5 * (ROUNDINGS * self.eps + n**0.5 * min(self.eps, float(jnp.finfo(jnp.float32).eps))) / 2

    @property
    def step(self) -> float:
        """By this part inputs are changed to see how much the result depends on their last digits."""
        return self.eps**0.5


def longest_sum(kind: str, config: LMConfig, length: int) -> int:
    """Terms of the longest sum at a point. In a norm they are squares, whose errors are small beside their sum."""
    heads, width, size = config.num_heads * config.resolved_head_size, config.width, config.resolved_ff_size
    sums = {
        "embedding": (1,),
        "norm": (1,),
        "attention": (width, heads, length),
        "feed-forward": (width, size),
        "block": (width, heads, length, size),
        "head": (width,),
    }
    return max(sums[kind])


def alone(model: TransformerLM, layer: int) -> TransformerLM:
    """A model of this layer only, with the same embedding, last norm and head; the model is not scanned."""
    config = model.config
    copy = jax.tree.map(lambda x: x, model)
    copy.config = LMConfig(**_fields(config) | {"depth": 1, "windows": (config.window(layer),)})
    copy.blocks = restack([model.blocks.rest[layer]], copy.config)
    return copy


def _fields(config: LMConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in LMConfig.__dataclass_fields__}


def nudged(x: np.ndarray, step: float) -> np.ndarray:
    """Every number larger or smaller by a part of it, always the same way; what are no numbers stays."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    signs = np.random.default_rng(0).choice([-1, 1], size=x.shape)
    return (x.astype(np.float64) * (1 + step * signs)).astype(x.dtype)


def judged(
    model: TransformerLM,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    rows: np.ndarray,
    scale: Scale,
) -> dict[str, tuple[Difference, float]]:
    """For each point the difference, and the distance that rounding may make."""
    run = partial(run_points, model)
    with jax.default_matmul_precision("highest"):
        found = run({name: jnp.asarray(x) for name, x in inputs.items()}, scale.positions)
        moved = run({name: jnp.asarray(nudged(x, scale.step)) for name, x in inputs.items()}, scale.positions)
    results = {}
    for name, expected in outputs.items():
        kind = POINTS[name].kind
        n = longest_sum(kind, model.config, scale.length)
        # A norm takes each row by itself, wherever the axis of positions stands, and heads may come before it.
        chosen = np.ones(expected.shape[:-1], bool) if kind == "norm" else rows
        results[name] = compared(
            np.asarray(found[name]), np.asarray(moved[name]), expected, chosen, scale, scale.relative(n)
        )
    return results


def compared(
    found: np.ndarray, moved: np.ndarray, expected: np.ndarray, rows: np.ndarray, scale: Scale, relative: float
) -> tuple[Difference, float]:
    """The difference in these rows, and what is allowed: this part of the largest number that is expected, and of the
    change of the result if every input changed by its own size.
    """
    found, moved, expected = (x[rows] for x in (found, moved, expected))
    with np.errstate(invalid="ignore"):  # inf - inf
        change = float(np.abs(moved.astype(np.float64) - found.astype(np.float64)).max(initial=0.0)) / scale.step
    size = float(np.abs(expected.astype(np.float64)).max(initial=0.0)) + change
    return difference(found, expected), relative * size


@jax.jit
def _whole(model: TransformerLM, tokens: jax.Array, positions: jax.Array) -> tuple[dict[int, jax.Array], jax.Array]:
    out = model(tokens, positions=positions, capture=Capture(hidden="all"))
    return out.captured.hidden, out.logits


def streams(model: TransformerLM, tokens: np.ndarray, scale: Scale) -> list[tuple[dict[int, np.ndarray], np.ndarray]]:
    """Our whole model as users run it: hidden states by layer, and logits; and again with a nudged embedding."""
    embedding = np.asarray(named(model)["embedding"])
    other = named(model) | {"embedding": jnp.asarray(nudged(embedding, scale.step))}
    with jax.default_matmul_precision("highest"):
        runs = [_whole(x, jnp.asarray(tokens), scale.positions) for x in (model, filled(model, other, "embedding"))]
    return [({n: np.asarray(x) for n, x in hidden.items()}, np.asarray(logits)) for hidden, logits in runs]


def changed(model: TransformerLM, **fields: Any) -> TransformerLM:
    """The same arrays in a model of another config."""
    config = LMConfig(**_fields(model.config) | fields)
    abstract = jax.eval_shape(lambda: models.create(config))
    return filled(abstract, named(model), "config: expected one with the same arrays")
