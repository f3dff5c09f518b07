"""Which problems the kernel evaluates exactly; for any other, which part of it is in the way, and the cure."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.implementations.problem import Problem
from jax_attention.masks import Causal, Lengths, Mask, SlidingWindow
from jax_attention.masks.base import joined_by_and
from jax_attention.normalizers import softmax
from jax_attention.scores import Dot, ScaledDot

ELSEWHERE = "implementation='blockwise' takes it"


class Band(NamedTuple):
    """A mask in the kernel's words; the window counts keys, the query's own included."""

    causal: bool
    window: int | None
    key_lengths: Any
    query_lengths: Any


def why_not(problem: Problem) -> str | None:
    """The first reason why the kernel cannot evaluate a problem, or None."""
    return _device(problem) or _operands(problem) or _rule(problem) or _mask(problem)


def band_of(mask: Mask | None) -> Band:
    """Of a mask without reasons against it."""
    parts = joined_by_and(mask)
    lengths = next((x for x in parts if isinstance(x, Lengths)), Lengths())
    windows = [x.left for x in parts if isinstance(x, SlidingWindow) and x.left is not None]
    causal = any(isinstance(x, (Causal, SlidingWindow)) for x in parts)
    return Band(causal, min(windows, default=None), lengths.key_lengths, lengths.query_lengths)


def compute_capability() -> tuple[int, ...]:
    """Of the default device, (9, 0) for example; () if that is no NVIDIA GPU."""
    numbers = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")
    return tuple(map(int, numbers)) if all(x.isdigit() for x in numbers) else ()


def _device(problem: Problem) -> str | None:
    if compute_capability() < (8, 0):
        device = jax.devices()[0].device_kind
        return f"the cuDNN kernel needs an NVIDIA GPU of compute capability 8.0, got {device}; 'blockwise' runs there"
    return None


def _operands(problem: Problem) -> str | None:
    dtypes = [x.dtype for x in (problem.query, problem.key, problem.value)]
    if len(set(dtypes)) > 1 or dtypes[0] not in (jnp.float16, jnp.bfloat16):
        found = ", ".join(map(str, dtypes))
        return f"the cuDNN kernel needs query, key and value all in float16 or all in bfloat16, got {found}; cast them"
    largest = 256 if compute_capability() >= (9, 0) else 128
    size, value_size = problem.query.shape[-1], problem.value.shape[-1]
    if size % 8 or not 8 <= size <= largest or size != value_size:
        return (
            f"the cuDNN kernel needs one head size for query, key and value, a multiple of 8 up to {largest}, got "
            f"{size} and {value_size}; {ELSEWHERE}"
        )
    return None


def _rule(problem: Problem) -> str | None:
    score = problem.score
    if not isinstance(score, (Dot, ScaledDot)):
        return f"score: the cuDNN kernel knows dot and scaled_dot, got {score!r}; {ELSEWHERE}"
    scale = getattr(score, "scale", None)
    if scale is not None and not (isinstance(scale, (int, float)) and 0 < scale < float("inf")):
        return (
            f"score: the cuDNN kernel needs a scale that is a positive Python number, got {score!r}; multiply the "
            "query by it instead"
        )
    if problem.mods:
        return f"mods: the cuDNN kernel changes no scores, got {problem.mods[0]!r}; {ELSEWHERE}"
    if problem.normalize != softmax():
        return f"normalize: the cuDNN kernel knows softmax() without sinks, got {problem.normalize!r}; {ELSEWHERE}"
    if problem.dropout is not None:
        return f"dropout: the cuDNN kernel would draw other bits; {ELSEWHERE}"
    if problem.precision is not None:
        return f"precision: the cuDNN kernel has but one, got {problem.precision!r}; leave precision out"
    return None


def _mask(problem: Problem) -> str | None:
    parts, (rows, columns) = joined_by_and(problem.mask), problem.score_shape[-2:]
    bands = [x for x in parts if type(x) in (Causal, SlidingWindow)]
    lengths = [x for x in parts if type(x) is Lengths]
    if len(bands) + len(lengths) < len(parts) or len(lengths) > 1:
        return (
            "mask: the cuDNN kernel knows causal, sliding_window and one lengths, joined by &, got "
            f"{problem.mask!r}; {ELSEWHERE}"
        )
    if parts and not (_in_order(problem.query_positions) and _in_order(problem.key_positions)):
        return f"query_positions, key_positions: the cuDNN kernel counts rows from 0; {ELSEWHERE}"
    if bands and (rows != columns or any(x.offset for x in bands)):
        return (
            "mask: the cuDNN kernel aligns causal masks and windows at position 0 of as many keys as queries, got "
            f"{problem.mask!r} for {rows} queries and {columns} keys; {ELSEWHERE}"
        )
    if bands and all(getattr(x, "right", 0) != 0 for x in bands):
        return f"mask: the cuDNN kernel has no window that looks ahead, got {problem.mask!r}; {ELSEWHERE}"
    if band_of(problem.mask).window is not None and lengths and lengths[0].key_lengths is not None:
        return f"mask: key_lengths can leave a window without keys, where the cuDNN kernel fails; {ELSEWHERE}"
    return None


def _in_order(positions: jax.Array) -> bool:
    """Whether they are known to be 0, 1, 2, …"""
    return isinstance(positions, np.ndarray) and np.array_equal(positions.ravel(), np.arange(positions.size))
