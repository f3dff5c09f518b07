"""Why a point differs, by counterfactuals: the cause is what makes the difference vanish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.cache import EMPTY
from jax_attention.core.tree_paths import arrays_by_path, replace_arrays
from jax_attention.interop.report.causes import HYPOTHESES, Guess
from jax_attention.interop.report.halves import Half
from jax_attention.interop.report.ours import alone, judged
from jax_attention.interop.report.points import POINTS, run_points
from jax_attention.interop.report.rounding import ParityRow
from jax_attention.interop.report.theirs import Place
from jax_attention.masks import fully_masked_rows
from jax_attention.models import TransformerLM
from jax_attention.nn.freeze import unfreeze

SMALL = 2.0**-12
"""The root mean square of inputs by which epsilons of norms are told apart: their squares are as small as those."""
NARROW = {"TF32": 10, "bfloat16": 7}
"""Bits behind the leading one of the numbers that a product is made of, where float32 has 23."""
MULTIPLY = ("attention", "cross-attention", "feed-forward")
FACTOR = 2.5
"""A rounded product is recognised by the size of its error, to this factor: how the devices round is not known."""


@dataclass(frozen=True)
class Diagnosis:
    """The name of what is different, and a sentence that says in which direction."""

    name: str
    sentence: str


def recognise(suspect: ParityRow, halves: Sequence[Half]) -> Diagnosis | None:
    """The cause of the first difference, if it is one of those that we know."""
    half = next(half for half in halves if half.name == suspect.half)
    place = (suspect.layer, suspect.point)
    if place not in half.trace.outputs:
        return None
    model = alone(half.model, suspect.layer or 0)
    return _padding(model, place, half) or _hypothesis(model, place, half) or _narrow_products(halves)


# --- Padding ---------------------------------------------------------------------------------------------------------


def _padding(model: TransformerLM, place: Place, half: Half) -> Diagnosis | None:
    rows = half.unpadded
    if rows.sum() == half.read.seen.sum() or POINTS[place[1]].kind == "norm" or not _explains(model, place, rows, half):
        return None
    return Diagnosis("padding", "only rows with padding differ: their padding is seen, or positions begin elsewhere")


# --- Counterfactuals -------------------------------------------------------------------------------------------------


def _hypothesis(model: TransformerLM, place: Place, half: Half) -> Diagnosis | None:
    point = POINTS[place[1]]
    for tried in HYPOTHESES:
        if point.kind in tried.kinds:
            for guess in tried.guesses(model, point.ours.format(layer=0)):
                chosen = _not_empty(guess, point.kind, half)
                if chosen.any() and _explains(guess.model, place, chosen, half):
                    return Diagnosis(tried.name, tried.sentence.format(theirs=guess.theirs, ours=guess.ours))
    return None


def _explains(model: TransformerLM, place: Place, rows: np.ndarray, half: Half) -> bool:
    """Whether this model does what theirs did; a norm has to do it with small numbers too."""
    name, trace = place[1], half.trace
    pairs = [(trace.inputs[place], trace.outputs[place])]
    if place in trace.again:
        small = _small(trace.inputs[place])
        pairs.append((small, trace.again[place](small)))
    for x, y in pairs:
        found, allowed = judged(model, half, {name: x}, {name: y}, rows)[name]
        if not found.max_abs <= allowed:
            return False
    return True


def _small(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return (wide * SMALL / np.sqrt(np.mean(np.square(wide)))).astype(x.dtype)


def _not_empty(guess: Guess, kind: str, half: Half) -> np.ndarray:
    """Without queries that the mask leaves no key: what is made of them differs from library to library."""
    mask = unfreeze(guess.model.blocks.rest[0].attention.rule["mask"])
    if kind != "attention" or mask is None:
        return half.unpadded
    at, count = half.beside.positions, half.read.seen.shape[-1]
    empty = fully_masked_rows(mask, count, count, query_positions=at, key_positions=at)
    return half.unpadded & ~np.asarray(empty) & (at != EMPTY)


# --- Products of rounded numbers -------------------------------------------------------------------------------------


def _narrow_products(halves: Sequence[Half]) -> Diagnosis | None:
    """Every layer differs alike, by what comes of rounding the factors of products."""
    if halves[0].scale.eps > jnp.finfo(jnp.float32).eps:
        return None
    for name, bits in NARROW.items():
        ratios = [x for half in halves for x in _ratios(bits, half)]
        if ratios and all(1 / FACTOR <= x <= FACTOR for x in ratios):
            return Diagnosis(name, f"every layer differs as if the products of one side were made in {name}")
    return None


def _ratios(bits: int, half: Half) -> Iterator[float]:
    """For every part of a block that multiplies, the difference to theirs over that to ours with rounded kernels and
    inputs.
    """
    narrow = partial(_rounded, bits=bits)
    for layer in range(half.model.config.depth):
        model = alone(half.model, layer)
        names = [name for name in half.trace.names(layer) if POINTS[name].kind in MULTIPLY]
        inputs = {name: half.trace.inputs[layer, name] for name in names}
        kernels = {key: narrow(x) if key.endswith(".kernel") else x for key, x in arrays_by_path(model).items()}
        rounded = replace_arrays(model, kernels, "model: expected the same arrays")
        with jax.default_matmul_precision("highest"):
            ours = run_points(model, inputs, half.beside)
            other = run_points(rounded, *jax.tree.map(narrow, (inputs, half.beside)))
        for name in names:
            x, y, z = (
                np.asarray(a)[half.read.seen] for a in (ours[name], other[name], half.trace.outputs[layer, name])
            )
            yield float(np.linalg.norm(z - x) / max(np.linalg.norm(y - x), np.finfo(np.float32).tiny))


def _rounded(x: Any, bits: int) -> Any:
    """To this many bits behind the leading one; what are no floating numbers stays."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    mantissa, exponent = np.frexp(np.asarray(x))
    return jnp.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1))
