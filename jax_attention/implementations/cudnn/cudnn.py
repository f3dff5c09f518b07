"""Adapter to NVIDIA's fused kernel, which jax.nn reaches; by name only, and only for what the kernel gets right.

Its derivative is one rule for reverse mode, so there is no forward mode and no second derivative. `implementation=None`
promises both, and therefore never takes it.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import zero_rows
from jax_attention.implementations.base import Implementation
from jax_attention.implementations.call import AttentionCall
from jax_attention.implementations.cudnn.eligible import CudnnMask, cudnn_mask, why_not
from jax_attention.implementations.cudnn.fused import KernelOptions, attention
from jax_attention.implementations.cudnn.layout import layout_of
from jax_attention.scores import Dot


@dataclasses.dataclass(frozen=True)
class Cudnn(Implementation):
    """NVIDIA's fused attention kernel, `implementation="cudnn"`: one derivative, in reverse mode.

    Returns:
        An implementation, for the argument `implementation` of all attention functions.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import Cudnn, explain
        >>> x = jnp.ones((3, 4))
        >>> explain(x, x, x).why_not["cudnn"].split(",")[0]
        'the cuDNN kernel needs an NVIDIA GPU of compute capability 8.0'

    Reference:
        https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
    """

    name: ClassVar[str] = "cudnn"
    only_by_name: ClassVar[str] = (
        'it could, and is taken by name only (implementation="cudnn"): it has no jvp and no second derivative'
    )

    def why_not(self, call: AttentionCall) -> str | None:
        return why_not(call)

    def attend(self, call: AttentionCall) -> jax.Array:
        if 0 in call.score_shape:
            return jnp.zeros((*call.score_shape[:-1], call.value.shape[-1]), call.query.dtype)
        mask = cudnn_mask(call.mask)
        if mask.key_lengths is None and mask.query_lengths is None:
            return _fused(call, mask)
        rows, columns = _used(call, mask)
        query = zero_rows(call.query, rows)
        key, value = (zero_rows(x, columns) for x in (call.key, call.value))
        return zero_rows(_fused(call.replace(query=query, key=key, value=value), mask), rows)


def _fused(call: AttentionCall, mask: CudnnMask) -> jax.Array:
    """Output of the kernel, `[*batch, T, E]`."""
    lengths = mask.key_lengths
    if lengths is not None:
        # The kernel computes NaN for a row without keys; `_used` sets such rows to 0 afterwards.
        lengths = jnp.clip(jnp.asarray(lengths, jnp.int32), 1, call.key.shape[-2])
    layout = layout_of(call, lengths)
    run = attention(_kernel_options(call, mask))
    query, key, value = layout.queries(call.query), layout.keys(call.key), layout.keys(call.value)
    return layout.restore(run(query, key, value, layout.per_batch(lengths)))


def _kernel_options(call: AttentionCall, mask: CudnnMask) -> KernelOptions:
    score, (rows, size) = call.score, call.query.shape[-2:]
    scale = 1.0 if isinstance(score, Dot) else size**-0.5 if score.scale is None else float(score.scale)
    window = mask.window if mask.window is not None and mask.window < rows else None
    return KernelOptions(scale, mask.causal, window)


def _used(call: AttentionCall, mask: CudnnMask) -> tuple[jax.Array, jax.Array]:
    """Rows `[..., T]` and columns `[..., S]` that have an allowed pair under lengths.

    The kernel never sees a row without one: a length of 0 is raised to 1, and the row is set to 0 afterwards. Unused
    rows of the operands are set to 0 before, so that NaN there goes nowhere and their gradient is 0.
    """
    rows, columns = (jnp.arange(size).reshape((1,) * len(call.batch_shape) + (size,)) for size in call.score_shape[-2:])
    used_rows, used_columns = rows >= 0, columns >= 0
    if mask.query_lengths is not None:
        length = _per_row(mask.query_lengths)
        used_rows, used_columns = rows < length, (columns if mask.causal else 0) < length
    if mask.key_lengths is not None:
        length = _per_row(mask.key_lengths)
        used_rows, used_columns = used_rows & (length > 0), used_columns & (columns < length)
    return used_rows, used_columns


def _per_row(length: jax.Array | int) -> jax.Array | int:
    return length if isinstance(length, int) else jnp.asarray(length)[..., None]
