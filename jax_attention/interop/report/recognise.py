"""Why a point differs, by counterfactuals: the cause is what makes the difference vanish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.interop.report.causes import HYPOTHESES, Guess
from jax_attention.interop.report.points import POINTS, run_points
from jax_attention.interop.report.rounding import Row, Scale, alone, judged
from jax_attention.interop.report.theirs import Place, Trace
from jax_attention.masks import fully_masked_rows
from jax_attention.models import TransformerLM
from jax_attention.nn.hold import release
from jax_attention.nn.named import filled, named

SMALL = 2.0**-12
"""The root mean square of inputs by which epsilons of norms are told apart: their squares are as small as those."""
NARROW = {"TF32": 10, "bfloat16": 7}
"""Bits behind the leading one of the numbers that a product is made of, where float32 has 23."""
FACTOR = 2.5
"""A rounded product is recognised by the size of its error, to this factor: how the devices round is not known."""


@dataclass(frozen=True)
class Cause:
    """The name of what is different, and a sentence that says in which direction."""

    name: str
    sentence: str


@dataclass(frozen=True)
class Evidence:
    """All that is known about the two models."""

    model: TransformerLM
    trace: Trace
    seen: np.ndarray
    scale: Scale
    rows: tuple[Row, ...]


def recognise(suspect: Row, known: Evidence) -> Cause | None:
    """The cause of the first difference, if it is one of those that we know."""
    place = (suspect.layer, suspect.point)
    if place not in known.trace.outputs:
        return None
    model = alone(known.model, suspect.layer or 0)
    return _padding(model, place, known) or _hypothesis(model, place, known) or _narrow_products(known)


# --- Padding ---------------------------------------------------------------------------------------------------------


def _whole_rows(seen: np.ndarray) -> np.ndarray:
    """Tokens of sequences without padding, or of all if each has some."""
    whole = seen & seen.all(axis=-1, keepdims=True)
    return whole if whole.any() else seen


def _padding(model: TransformerLM, place: Place, known: Evidence) -> Cause | None:
    rows = _whole_rows(known.seen)
    if rows.sum() == known.seen.sum() or POINTS[place[1]].kind == "norm" or not _explains(model, place, rows, known):
        return None
    return Cause("padding", "only rows with padding differ: their padding is seen, or positions begin elsewhere")


# --- Counterfactuals -------------------------------------------------------------------------------------------------


def _hypothesis(model: TransformerLM, place: Place, known: Evidence) -> Cause | None:
    point, rows = POINTS[place[1]], _whole_rows(known.seen)
    for tried in HYPOTHESES:
        if point.kind in tried.kinds:
            for guess in tried.guesses(model, point.ours.format(layer=0)):
                chosen = _not_empty(guess, rows, point.kind, known)
                if chosen.any() and _explains(guess.model, place, chosen, known):
                    return Cause(tried.name, tried.sentence.format(theirs=guess.theirs, ours=guess.ours))
    return None


def _explains(model: TransformerLM, place: Place, rows: np.ndarray, known: Evidence) -> bool:
    """Whether this model does what theirs did; a norm has to do it with small numbers too."""
    name = place[1]
    pairs = [(known.trace.inputs[place], known.trace.outputs[place])]
    if place in known.trace.again:
        small = _small(known.trace.inputs[place])
        pairs.append((small, known.trace.again[place](small)))
    for x, y in pairs:
        found, allowed = judged(model, {name: x}, {name: y}, rows, known.scale)[name]
        if not found.max_abs <= allowed:
            return False
    return True


def _small(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return (wide * SMALL / np.sqrt(np.mean(np.square(wide)))).astype(x.dtype)


def _not_empty(guess: Guess, rows: np.ndarray, kind: str, known: Evidence) -> np.ndarray:
    """Without queries that the mask leaves no key: what is made of them differs from library to library."""
    mask = release(guess.model.blocks.rest[0].attention.rule["mask"])
    if kind != "attention" or mask is None:
        return rows
    at, count = known.scale.positions, known.seen.shape[-1]
    empty = fully_masked_rows(mask, count, count, query_positions=at, key_positions=at)
    return rows & ~np.asarray(empty) & (at != EMPTY)


# --- Products of rounded numbers -------------------------------------------------------------------------------------


def _narrow_products(known: Evidence) -> Cause | None:
    """Every layer differs alike, by what comes of rounding the factors of products."""
    if known.scale.eps > jnp.finfo(jnp.float32).eps:
        return None
    for name, bits in NARROW.items():
        ratios = list(_ratios(bits, known))
        if ratios and all(1 / FACTOR <= x <= FACTOR for x in ratios):
            return Cause(name, f"every layer differs as if the products of one side were made in {name}")
    return None


def _ratios(bits: int, known: Evidence) -> Any:
    """For every half of a block, the difference to theirs over that to ours with rounded kernels and inputs."""
    positions = known.scale.positions
    for layer in range(known.model.config.depth):
        model = alone(known.model, layer)
        inputs = {
            name: known.trace.inputs[layer, name]
            for name in ("attention", "feed-forward")
            if (layer, name) in known.trace.inputs
        }
        kernels = {key: _rounded(x, bits) if key.endswith(".kernel") else x for key, x in named(model).items()}
        rounded = filled(model, kernels, "model: expected the same arrays")
        with jax.default_matmul_precision("highest"):
            ours = run_points(model, inputs, positions)
            other = run_points(rounded, {key: _rounded(x, bits) for key, x in inputs.items()}, positions)
        yield from _quotients(ours, other, known.trace.outputs, layer, known.seen)


def _quotients(
    ours: Mapping[str, Any], other: Mapping[str, Any], theirs: Mapping[Place, Any], layer: int, seen: np.ndarray
) -> Any:
    for name, x in ours.items():
        x, y, z = (np.asarray(a)[seen] for a in (x, other[name], theirs[layer, name]))
        yield float(np.linalg.norm(z - x) / max(np.linalg.norm(y - x), np.finfo(np.float32).tiny))


def _rounded(x: Any, bits: int) -> jax.Array:
    """To this many bits behind the leading one."""
    mantissa, exponent = np.frexp(np.asarray(x))
    return jnp.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1))
