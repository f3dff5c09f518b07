"""Cause of a difference, by counterfactuals: the change of the JAX model that makes the difference vanish."""

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
from jax_attention.interop.parity.hf_run import Place
from jax_attention.interop.parity.hypotheses import HYPOTHESES, Guess
from jax_attention.interop.parity.jax_run import compare_points, single_layer
from jax_attention.interop.parity.points import POINTS, run_points
from jax_attention.interop.parity.rounding import ParityRow
from jax_attention.interop.parity.stacks import Stack
from jax_attention.masks import fully_masked_rows
from jax_attention.models import TransformerLM
from jax_attention.nn.freeze import unfreeze

SMALL = 2.0**-12
"""Root mean square of the inputs that tell epsilons of norms apart. Its square, 6e-8, is of the size of usual epsilons;
with inputs of size one, an epsilon of 1e-6 and one of 1e-12 give the same numbers to rounding.
"""
NARROW = {"TF32": 10, "bfloat16": 7}
"""Mantissa bits of the numbers that a product is made of; float32 has 23."""
MULTIPLY = ("attention", "cross-attention", "feed-forward")
FACTOR = 2.5
"""Products of rounded numbers are recognised by the size of their error, to this factor: how a device rounds (to
nearest or towards zero, the inputs or partial products) is not known.
"""


@dataclass(frozen=True)
class Diagnosis:
    """The name of the cause of a difference, and a sentence that says which side does what."""

    name: str
    sentence: str


def diagnose(suspect: ParityRow, stacks: Sequence[Stack]) -> Diagnosis | None:
    """The cause of the first difference, or None if it is not a known one."""
    stack = next(stack for stack in stacks if stack.name == suspect.stack)
    place = (suspect.layer, suspect.point)
    if place not in stack.trace.outputs:
        return None
    model = single_layer(stack.unrolled, suspect.layer or 0)
    return (
        _diagnose_padding(model, place, stack)
        or _diagnose_hypotheses(model, place, stack)
        or _diagnose_narrow_products(stacks)
    )


# --- Padding ---------------------------------------------------------------------------------------------------------


def _diagnose_padding(model: TransformerLM, place: Place, stack: Stack) -> Diagnosis | None:
    """Padding is the cause if some rows have some and the other rows are equal."""
    rows = stack.rows_without_padding
    has_padding = rows.sum() < stack.batch.is_token.sum()
    if not has_padding or POINTS[place[1]].kind == "norm" or not _explains(model, place, rows, stack):
        return None
    return Diagnosis("padding", "only rows with padding differ: padding is attended to, or positions begin elsewhere")


# --- Counterfactuals -------------------------------------------------------------------------------------------------


def _diagnose_hypotheses(model: TransformerLM, place: Place, stack: Stack) -> Diagnosis | None:
    """The first hypothesis with a guess that explains the difference in rows without padding."""
    point = POINTS[place[1]]
    for hypothesis in HYPOTHESES:
        if point.kind in hypothesis.kinds:
            for guess in hypothesis.guesses(model, point.path.format(layer=0)):
                rows = _rows_with_keys(guess, point.kind, stack)
                if rows.any() and _explains(guess.model, place, rows, stack):
                    return Diagnosis(hypothesis.name, hypothesis.sentence.format(hf=guess.hf, jax=guess.jax))
    return None


def _explains(model: TransformerLM, place: Place, rows: np.ndarray, stack: Stack) -> bool:
    """Whether a JAX model computes what transformers computed at a place; a norm must do so for small inputs too."""
    name, trace = place[1], stack.trace
    pairs = [(trace.inputs[place], trace.outputs[place])]
    if place in trace.norms:
        small = _shrink(trace.inputs[place])
        pairs.append((small, trace.norms[place](small)))
    for x, hf_output in pairs:
        difference, allowed = compare_points(model, stack, {name: x}, {name: hf_output}, rows)[name]
        if not difference.max_abs <= allowed:  # true for NaN too
            return False
    return True


def _shrink(x: np.ndarray) -> np.ndarray:
    """The same numbers, scaled to the root mean square `SMALL`."""
    wide = x.astype(np.float64)
    return (wide * SMALL / np.sqrt(np.mean(np.square(wide)))).astype(x.dtype)


def _rows_with_keys(guess: Guess, kind: str, stack: Stack) -> np.ndarray:
    """Rows without padding, except queries that the guessed mask leaves no key: there transformers gives the mean of
    all values, and this library 0.
    """
    mask = unfreeze(guess.model.blocks.rest[0].attention.rule["mask"])
    if kind != "attention" or mask is None:
        return stack.rows_without_padding
    positions, count = stack.inputs.positions, stack.batch.is_token.shape[-1]
    is_empty = fully_masked_rows(mask, count, count, query_positions=positions, key_positions=positions)
    return stack.rows_without_padding & ~np.asarray(is_empty) & (positions != EMPTY)


# --- Products of rounded numbers -------------------------------------------------------------------------------------


def _diagnose_narrow_products(stacks: Sequence[Stack]) -> Diagnosis | None:
    """Narrow products are the cause if every layer differs by about as much as rounding their factors makes."""
    if stacks[0].tolerance.eps > jnp.finfo(jnp.float32).eps:
        return None
    for name, bits in NARROW.items():
        ratios = [x for stack in stacks for x in _error_ratios(bits, stack)]
        if ratios and all(1 / FACTOR <= x <= FACTOR for x in ratios):
            return Diagnosis(name, f"every layer differs as if one side multiplied in {name}")
    return None


def _error_ratios(bits: int, stack: Stack) -> Iterator[float]:
    """For every part of a block that multiplies: |hf - jax| / |rounded jax - jax|, where the last has kernels and
    inputs with so many mantissa bits.
    """
    narrow = partial(_round_mantissa, bits=bits)
    for layer in range(stack.unrolled.config.depth):
        model = single_layer(stack.unrolled, layer)
        names = [name for name in stack.trace.names(layer) if POINTS[name].kind in MULTIPLY]
        inputs = {name: stack.trace.inputs[layer, name] for name in names}
        arrays = {name: narrow(x) if name.endswith(".kernel") else x for name, x in arrays_by_path(model).items()}
        rounded_model = replace_arrays(model, arrays, "model: expected the same arrays")
        with jax.default_matmul_precision("highest"):
            outputs = run_points(model, inputs, stack.inputs)
            rounded = run_points(rounded_model, *jax.tree.map(narrow, (inputs, stack.inputs)))
        for name in names:
            arrays = outputs[name], rounded[name], stack.trace.outputs[layer, name]
            jax_output, rounded_output, hf_output = (np.asarray(x)[stack.batch.is_token] for x in arrays)
            error = np.linalg.norm(rounded_output - jax_output)
            # `tiny` prevents 0 / 0 where rounding changes nothing.
            yield float(np.linalg.norm(hf_output - jax_output) / max(error, np.finfo(np.float32).tiny))


def _round_mantissa(x: Any, bits: int) -> Any:
    """Floating-point numbers rounded to so many bits after the leading one. Integers are not changed."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    mantissa, exponent = np.frexp(np.asarray(x))
    return jnp.asarray(np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1))
