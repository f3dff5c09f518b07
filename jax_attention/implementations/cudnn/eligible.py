"""Which calls the kernel evaluates exactly; for any other the first unsupported argument, and the cure."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.sizes import is_static
from jax_attention.implementations.call import AttentionCall, ResultKind
from jax_attention.masks import Causal, Lengths, Mask, SlidingWindow
from jax_attention.masks.base import and_terms
from jax_attention.normalizers import softmax
from jax_attention.scores import Dot, ScaledDot

ELSEWHERE = "implementation='blockwise' takes it"


class CudnnMask(NamedTuple):
    """A mask as options of the kernel; the window counts keys, the query's own position included."""

    causal: bool
    window: int | None
    key_lengths: Any
    query_lengths: Any


def why_not(call: AttentionCall) -> str | None:
    """The first reason why the kernel cannot evaluate a call, or None."""
    if call.result is not ResultKind.OUTPUT:
        return "weights and statistics: the cuDNN kernel returns neither; 'reference' and 'blockwise' do"
    return _device(call) or _operands(call) or _rule(call) or _mask(call)


def cudnn_mask(mask: Mask | None) -> CudnnMask:
    """Kernel options of a mask for which `_mask` finds no reason."""
    parts = and_terms(mask)
    lengths = next((x for x in parts if isinstance(x, Lengths)), Lengths())
    windows = [x.left for x in parts if isinstance(x, SlidingWindow) and x.left is not None]
    causal = any(isinstance(x, (Causal, SlidingWindow)) for x in parts)
    return CudnnMask(causal, min(windows, default=None), lengths.key_lengths, lengths.query_lengths)


def compute_capability() -> tuple[int, ...]:
    """Compute capability of the default device, such as (9, 0); () if it is no NVIDIA GPU."""
    numbers = str(getattr(jax.devices()[0], "compute_capability", "")).split(".")
    return tuple(map(int, numbers)) if all(x.isdigit() for x in numbers) else ()


def _device(call: AttentionCall) -> str | None:
    if compute_capability() < (8, 0):
        device = jax.devices()[0].device_kind
        return f"the cuDNN kernel needs an NVIDIA GPU of compute capability 8.0, got {device}; 'blockwise' runs there"
    return None


def _operands(call: AttentionCall) -> str | None:
    dtypes = [x.dtype for x in (call.query, call.key, call.value)]
    if len(set(dtypes)) > 1 or dtypes[0] not in (jnp.float16, jnp.bfloat16):
        got = ", ".join(map(str, dtypes))
        return f"the cuDNN kernel needs query, key and value all in float16 or all in bfloat16, got {got}; cast them"
    if not is_static(*call.score_shape):
        return f"the cuDNN kernel needs known sizes, got scores {call.score_shape}; {ELSEWHERE}"
    largest = 256 if compute_capability() >= (9, 0) else 128
    size, value_size = call.query.shape[-1], call.value.shape[-1]
    if size % 8 or not 8 <= size <= largest or size != value_size:
        return (
            f"the cuDNN kernel needs one head size for query, key and value, a multiple of 8 up to {largest}, got "
            f"{size} and {value_size}; {ELSEWHERE}"
        )
    return None


def _rule(call: AttentionCall) -> str | None:
    score = call.score
    if not isinstance(score, (Dot, ScaledDot)):
        return f"score: the cuDNN kernel knows dot and scaled_dot, got {score!r}; {ELSEWHERE}"
    scale = getattr(score, "scale", None)
    if scale is not None and not (isinstance(scale, (int, float)) and 0 < scale < float("inf")):
        return (
            f"score: the cuDNN kernel needs a scale that is a positive Python number, got {score!r}; multiply the "
            "query by it instead"
        )
    if call.mods:
        return f"mods: the cuDNN kernel changes no scores, got {call.mods[0]!r}; {ELSEWHERE}"
    if call.normalize != softmax():
        return f"normalize: the cuDNN kernel knows softmax() without sinks, got {call.normalize!r}; {ELSEWHERE}"
    if call.dropout is not None:
        return f"dropout: the cuDNN kernel would draw other bits; {ELSEWHERE}"
    if call.precision is not None:
        return f"precision: the cuDNN kernel has a single one, got {call.precision!r}; leave precision out"
    return None


def _mask(call: AttentionCall) -> str | None:
    parts, (rows, columns) = and_terms(call.mask), call.score_shape[-2:]
    positional = [x for x in parts if type(x) in (Causal, SlidingWindow)]
    lengths = [x for x in parts if type(x) is Lengths]
    if len(positional) + len(lengths) < len(parts) or len(lengths) > 1:
        return (
            "mask: the cuDNN kernel knows causal, sliding_window and one lengths, joined by &, got "
            f"{call.mask!r}; {ELSEWHERE}"
        )
    if parts and not (_in_order(call.query_positions) and _in_order(call.key_positions)):
        return f"query_positions, key_positions: the cuDNN kernel counts rows from 0; {ELSEWHERE}"
    if positional and (rows != columns or any(x.offset for x in positional)):
        return (
            "mask: the cuDNN kernel aligns causal masks and windows at position 0 of as many keys as queries, got "
            f"{call.mask!r} for {rows} queries and {columns} keys; {ELSEWHERE}"
        )
    if positional and all(getattr(x, "right", 0) != 0 for x in positional):
        return f"mask: the cuDNN kernel has no window that looks ahead, got {call.mask!r}; {ELSEWHERE}"
    if cudnn_mask(call.mask).window is not None and lengths and lengths[0].key_lengths is not None:
        return f"mask: key_lengths can leave a window without keys, where the cuDNN kernel fails; {ELSEWHERE}"
    return None


def _in_order(positions: jax.Array) -> bool:
    """Whether they are known to be 0, 1, 2, …"""
    return isinstance(positions, np.ndarray) and np.array_equal(positions.ravel(), np.arange(positions.size))
